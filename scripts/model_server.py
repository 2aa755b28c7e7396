"""A llama.cpp server on loopback: `model_server.py MODEL.gguf PORT`. Ends when its standard input does.

The weights are those of the base model, which was never taught to chat and carries no template: a form of
questions and answers, one line each, makes it answer and stop.
"""

import sys

import xllamacpp

TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'user': 'Question: ', 'assistant': 'Answer: '}.get(message['role'], '') }}{{ message['content'] }}\n"
    "{% endfor %}Answer:"
)


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.hostnames = ["127.0.0.1"]
    params.port = int(sys.argv[2])
    params.model_alias = {"gemma-3-270m"}
    params.cpuparams.n_threads = 2
    params.n_ctx = 4096
    params.n_parallel = 2
    params.n_predict = 60
    params.use_jinja = True
    params.chat_template = TEMPLATE
    params.antiprompt = ["\n"]
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    sys.stdin.read()


main()
