import json

import pytest

from simulator.engine_server.asks import read_chat, read_completion, read_tokenize
from simulator.engine_server.refusal import InvalidBody


def chat(**fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **fields}
    return json.dumps(body).encode()


def test_a_chat_is_counted_as_its_rendered_template():
    ask = read_chat(chat())
    assert ask.prompt == b"<|user|>hello<|end|><|assistant|>"
    assert ask.prompt_tokens == -(-len(ask.prompt) // 4)


def test_the_next_turn_of_a_conversation_keeps_the_prefix():
    turn = [{"role": "user", "content": "a" * 300}]
    answer = [{"role": "assistant", "content": "b" * 300}, {"role": "user", "content": "more"}]
    first, second = read_chat(chat(messages=turn)), read_chat(chat(messages=turn + answer))
    shared = len(first.prefix_hashes)
    assert shared >= 4
    assert second.prefix_hashes[:shared] == first.prefix_hashes


def test_an_answer_that_was_begun_is_gone_on_with():
    begun = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "w0 w1 w2"}]
    ask = read_chat(chat(messages=begun, continue_final_message=True, add_generation_prompt=False))
    assert ask.question == read_chat(chat()).prompt
    assert ask.prompt == ask.question + b"w0 w1 w2"
    assert ask.said_tokens == 3
    assert read_chat(chat(messages=begun)).said_tokens == 0
    ask = read_completion(json.dumps({"prompt": "hi w0 w1 w2"}).encode())
    assert (ask.question, ask.said_tokens) == (b"hi ", 3)
    for whole in ("hi", "hi w1 w2", "w0 w2"):
        ask = read_completion(json.dumps({"prompt": whole}).encode())
        assert (ask.question, ask.said_tokens) == (whole.encode(), 0)


def test_parts_of_text_are_joined_and_pictures_refused():
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    assert read_chat(chat(messages=[{"role": "user", "content": parts}])) == read_chat(chat())
    picture = [{"type": "image_url", "image_url": {"url": "data:"}}]
    with pytest.raises(InvalidBody, match="text only") as refused:
        read_chat(chat(messages=[{"role": "user", "content": picture}]))
    assert refused.value.param == "body.messages"


def test_the_newer_name_of_the_limit_wins():
    assert read_chat(chat(max_tokens=9)).max_tokens == 9
    assert read_chat(chat(max_tokens=9, max_completion_tokens=5)).max_tokens == 5
    assert read_chat(chat()).max_tokens is None


def test_a_legacy_completion_ends_after_16_tokens_unless_told_otherwise():
    assert read_completion(b'{"prompt":"x"}').max_tokens == 16
    assert read_completion(b'{"prompt":"x","max_tokens":3}').max_tokens == 3


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
def test_a_prompt_of_token_ids_is_as_long_as_the_list(prompt):
    ask = read_completion(json.dumps({"prompt": prompt}).encode())
    assert ask.prompt_tokens == 3
    assert ask.prefix_hashes == ()


def test_a_list_of_one_prompt_is_that_prompt():
    assert read_completion(b'{"prompt":["x"]}') == read_completion(b'{"prompt":"x"}')


def test_tokenize_takes_a_prompt_or_messages():
    assert read_tokenize(b'{"prompt":"hi"}') == b"hi"
    messages = b'{"messages":[{"role":"user","content":"hi"}]}'
    assert read_tokenize(messages) == b"<|user|>hi<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("read", "body", "param", "says"),
    [
        (read_chat, b"", "body", "Field required"),
        (read_chat, b"{", "body", "JSON decode error"),
        (read_chat, b'{"model":"m"}', "body.messages", "missing"),
        (read_chat, b'{"messages":[{"content":"x"}]}', "body.messages.0.role", "missing"),
        (read_chat, chat(temperature="hot"), "body.temperature", "float"),
        (read_chat, chat(n=2), "body.n", "one choice"),
        (read_completion, b'{"prompt":["a","b"]}', "body.prompt", "one prompt"),
        (read_completion, b'{"prompt":7}', "body.prompt", "int"),
        (read_tokenize, b"{}", "body.prompt", "required"),
    ],
)
def test_what_does_not_parse_names_the_field(read, body, param, says):
    with pytest.raises(InvalidBody) as refused:
        read(body)
    assert refused.value.param == param
    assert says in refused.value.detail
