from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from peersd.api.jsonrpc import (
    BATCH_REQUESTS_MAX,
    LINE_BYTES_MAX,
    ROWS_A_STEP,
    Invalid,
    Request,
    encode_batch,
    encode_error,
    encode_result,
    encode_result_in_steps,
    invalid_params,
    parse_line,
)


def refusal(line: bytes) -> tuple[int, object, str]:
    parsed = parse_line(line)
    assert isinstance(parsed, Invalid)
    return parsed.error.number, parsed.id, str(parsed.error.data["detail"])


def test_a_request_keeps_its_method_params_and_id() -> None:
    assert parse_line(b'{"jsonrpc":"2.0","method":"m","params":[1],"id":7}') == Request("m", [1], 7, False)
    assert parse_line(b'{"jsonrpc":"2.0","method":"m","params":{"a":1},"id":"x","extra":1}\r') == Request(
        "m", {"a": 1}, "x", False
    )


def test_a_request_without_id_is_a_notification_and_one_with_null_is_not() -> None:
    assert parse_line(b'{"jsonrpc":"2.0","method":"m"}') == Request("m", None, None, True)
    assert parse_line(b'{"jsonrpc":"2.0","method":"m","id":null}') == Request("m", None, None, False)


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff", "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1" * 5000, "digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a":1} {"b":2}', "Extra data"),
        (b"{'a':1}", "Expecting property name"),
        (b'{"a":"\t"}', "control character"),
    ],
)
def test_what_is_not_json_is_a_parse_error_with_id_null(line: bytes, detail: str) -> None:
    number, request_id, said = refusal(line)
    assert (number, request_id) == (-32700, None)
    assert detail in said


@pytest.mark.parametrize(
    ("line", "request_id"),
    [
        (b"1", None),
        (b"null", None),
        (b'"x"', None),
        (b"[]", None),
        (b"{}", None),
        (b'{"jsonrpc":"2.0","id":4}', 4),
        (b'{"jsonrpc":"2.0","method":1,"id":4}', 4),
        (b'{"jsonrpc":"1.0","method":"m","id":"a"}', "a"),
        (b'{"jsonrpc":2.0,"method":"m","id":4}', 4),
        (b'{"method":"m","id":4}', 4),
        (b'{"jsonrpc":"2.0","method":"m","params":"x","id":4}', 4),
        (b'{"jsonrpc":"2.0","method":"m","params":null,"id":4}', 4),
        (b'{"jsonrpc":"2.0","method":"m","id":true}', None),
        (b'{"jsonrpc":"2.0","method":"m","id":[1]}', None),
        (b'{"jsonrpc":"2.0","method":"m","id":{}}', None),
        (b'{"jsonrpc":"2.0","method":"m","id":1e999}', None),
    ],
)
def test_json_that_is_no_request_is_an_invalid_request_under_its_id_where_it_has_one(line: bytes, request_id: Any) -> None:
    assert refusal(line)[:2] == (-32600, request_id)


def test_a_batch_above_the_bound_is_refused_whole() -> None:
    batch = [{"jsonrpc": "2.0", "method": "m"}] * (BATCH_REQUESTS_MAX + 1)
    assert refusal(json.dumps(batch).encode())[0] == -32600
    parsed = parse_line(json.dumps(batch[1:]).encode())
    assert isinstance(parsed, list)
    assert len(parsed) == BATCH_REQUESTS_MAX


def test_answers_have_one_literal_form() -> None:
    assert encode_result("a", {"x": 1}) == b'{"jsonrpc":"2.0","result":{"x":1},"id":"a"}'
    assert encode_error(None, invalid_params("limit must be small", "see", parameter="limit")) == (
        b'{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params: limit must be small",'
        b'"data":{"code":"invalid_params","detail":"limit must be small","hint":"see","parameter":"limit"}},"id":null}'
    )
    assert encode_batch([b"1", b"2"]) == b"[1,2]"
    assert encode_batch([]) is None


def test_an_answer_beyond_a_line_becomes_too_large_under_its_id() -> None:
    room = LINE_BYTES_MAX - len(encode_result(3, ""))
    assert len(encode_result(3, "x" * room)) == LINE_BYTES_MAX
    answer = json.loads(encode_result(3, "x" * (room + 1)))
    assert (answer["id"], answer["error"]["code"], answer["error"]["data"]["code"]) == (3, -32000, "too_large")


def in_steps(result: object) -> tuple[int, bytes]:
    steps = encode_result_in_steps(3, result)
    number = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return number, end.value
        number += 1


@pytest.mark.parametrize(("rows", "steps"), [(0, 0), (ROWS_A_STEP, 0), (ROWS_A_STEP + 1, 2), (3 * ROWS_A_STEP, 3)])
def test_many_rows_are_encoded_in_steps_to_the_same_answer(rows: int, steps: int) -> None:
    result = {"columns": ["a", "b"], "rows": [(n, b"x") for n in range(rows)], "truncated": False}
    number, line = in_steps(result)
    assert number == steps
    assert json.loads(line) == json.loads(encode_result(3, result))
    assert json.loads(in_steps({"rows": result["rows"]})[1]) == json.loads(encode_result(3, {"rows": result["rows"]}))


def test_encoding_ends_at_the_step_that_passes_the_bound_of_a_line() -> None:
    number, line = in_steps({"rows": [("x" * 64 * 1024,)] * 5 * ROWS_A_STEP})
    assert (number, json.loads(line)["error"]["data"]["code"]) == (1, "too_large")


def published_cases() -> list[object]:
    # The examples of the specification lie beside the checkout, not in it.
    file = next(
        (p / "shared/vectors/jsonrpc_examples.json" for p in Path(__file__).parents if (p / "shared/vectors").is_dir()), None
    )
    if file is None:
        return [pytest.param(None, id="absent", marks=pytest.mark.skip("shared/vectors is not beside the checkout"))]
    return [pytest.param(case, id=case["name"]) for case in json.loads(file.read_text())["cases"]]


@pytest.mark.parametrize("case", published_cases())
async def test_the_published_example_is_answered_as_the_specification_says(
    case: Any, talk: Callable[[str], Awaitable[Any]]
) -> None:
    answer = await talk(case["request"])
    assert strip_data(answer) == case["response"]


def strip_data(answer: Any) -> Any:
    if isinstance(answer, list):
        return [strip_data(one) for one in answer]
    if answer is not None and "error" in answer:
        return {**answer, "error": {key: value for key, value in answer["error"].items() if key != "data"}}
    return answer
