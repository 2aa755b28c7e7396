"""An endpoint picker made of the official protos (xds-protos, grpcio): a program, for those have an
environment of their own.

What it answers stands in the request's last message, as JSON: {"pick": "ip:port,ip:port"} names endpoints (in
the header and in the dynamic metadata), {"status": 429, "text": "…"} refuses. "model": the body is given back
with another one. "header": headers that it sets. "silent": it never answers. "bare": it gives no body back.
What it was sent and told it prints, a JSON line each: first its port.
"""

import asyncio
import json
import sys

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as messages
from envoy.service.ext_proc.v3 import external_processor_pb2_grpc as services
from google.protobuf.json_format import MessageToDict


def say(**what) -> None:
    print(json.dumps(what), flush=True)


def headers_of(message) -> dict:
    return {header.key: header.raw_value.decode() for header in message.headers.headers}


def option(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, raw_value=value.encode()))


class Picker(services.ExternalProcessorServicer):
    async def Process(self, requests, context):
        headers, body = {}, b""
        async for request in requests:
            match request.WhichOneof("request"):
                case "request_headers":
                    headers = headers_of(request.request_headers)
                    say(event="headers", headers=headers, mode=request.protocol_config.request_body_mode)
                case "request_body":
                    body += request.request_body.body
                    if request.request_body.end_of_stream:
                        for answer in await self.answers(json.loads(body)):
                            yield answer
                case "response_headers":
                    told = (
                        MessageToDict(request.metadata_context).get("filterMetadata", {}).get("envoy.lb", {})
                    )
                    say(event="served", status=headers_of(request.response_headers)[":status"], told=told)
                    yield messages.ProcessingResponse(response_headers=messages.HeadersResponse())
        say(event="ended")

    async def answers(self, body: dict) -> list:
        wanted = json.loads(body["messages"][-1]["content"])
        if wanted.get("silent"):
            await asyncio.sleep(3600)
        if "status" in wanted:
            immediate = messages.ImmediateResponse(body=wanted["text"].encode())
            immediate.status.code = wanted["status"]
            immediate.headers.set_headers.append(option("retry-after", "7"))
            return [messages.ProcessingResponse(immediate_response=immediate)]
        common = messages.CommonResponse(clear_route_cache=True)
        answer = messages.ProcessingResponse(request_headers=messages.HeadersResponse(response=common))
        if "pick" in wanted:
            answer.dynamic_metadata.update({"envoy.lb": {"x-gateway-destination-endpoint": wanted["pick"]}})
            if not wanted.get("metadata"):
                added = answer.request_headers.response.header_mutation.set_headers
                added.append(option("x-gateway-destination-endpoint", wanted["pick"]))
        for name, value in wanted.get("header", {}).items():
            answer.request_headers.response.header_mutation.set_headers.append(option(name, value))
        if wanted.get("bare"):
            return [answer]
        text = json.dumps({**body, "model": wanted["model"]} if "model" in wanted else body).encode()
        pieces = [text[at : at + 60_000] for at in range(0, len(text), 60_000)]
        given = []
        for number, piece in enumerate(pieces, 1):
            one = messages.ProcessingResponse()
            streamed = one.request_body.response.body_mutation.streamed_response
            streamed.body, streamed.end_of_stream = piece, number == len(pieces)
            given.append(one)
        return [answer, *given]


async def main() -> None:
    server = grpc.aio.server()
    services.add_ExternalProcessorServicer_to_server(Picker(), server)
    port = server.add_insecure_port(f"127.0.0.1:{sys.argv[1] if len(sys.argv) > 1 else 0}")
    await server.start()
    say(event="started", port=port)
    await server.wait_for_termination()


asyncio.run(main())
