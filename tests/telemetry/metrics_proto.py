"""The messages of io.prometheus.client, for Google's protobuf library, with the numbers and types of the
official file (https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto)."""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

assert timestamp_pb2  # it is in the default pool then

PACKAGE = "io.prometheus.client"
MESSAGES = {
    "LabelPair": "1 name string, 2 value string",
    "Gauge": "1 value double",
    "Counter": "1 value double, 2 exemplar Exemplar, 3 created_timestamp Timestamp",
    "Quantile": "1 quantile double, 2 value double",
    "Summary": "1 sample_count uint64, 2 sample_sum double, 3 quantile Quantile*, 4 created_timestamp Timestamp",
    "Untyped": "1 value double",
    "Histogram": (
        "1 sample_count uint64, 4 sample_count_float double, 2 sample_sum double, 3 bucket Bucket*, "
        "15 created_timestamp Timestamp, 5 schema sint32, 6 zero_threshold double, 7 zero_count uint64, "
        "8 zero_count_float double, 9 negative_span BucketSpan*, 10 negative_delta sint64*, 11 negative_count double*, "
        "12 positive_span BucketSpan*, 13 positive_delta sint64*, 14 positive_count double*, 16 exemplars Exemplar*"
    ),
    "Bucket": "1 cumulative_count uint64, 4 cumulative_count_float double, 2 upper_bound double, 3 exemplar Exemplar",
    "BucketSpan": "1 offset sint32, 2 length uint32",
    "Exemplar": "1 label LabelPair*, 2 value double, 3 timestamp Timestamp",
    "Metric": (
        "1 label LabelPair*, 2 gauge Gauge, 3 counter Counter, 4 summary Summary, 5 untyped Untyped, 7 histogram Histogram, "
        "6 timestamp_ms int64"
    ),
    "MetricFamily": "1 name string, 2 help string, 3 type MetricType, 4 metric Metric*, 5 unit string",
}
TYPES = ("COUNTER", "GAUGE", "SUMMARY", "UNTYPED", "HISTOGRAM", "GAUGE_HISTOGRAM")


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="metrics.proto", package=PACKAGE, syntax="proto2", dependency=["google/protobuf/timestamp.proto"]
    )
    file.enum_type.add(
        name="MetricType", value=[{"name": name, "number": number} for number, name in enumerate(TYPES)]
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in MESSAGES.items():
        made = file.message_type.add(name=message)
        for field in fields.split(", "):
            number, name, kind = field.split()
            label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            kind = kind.rstrip("*")
            added = made.field.add(name=name, number=int(number), label=label)
            if kind[0].islower():
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
            else:
                added.type = kinds.TYPE_ENUM if kind == "MetricType" else kinds.TYPE_MESSAGE
                added.type_name = f".google.protobuf.{kind}" if kind == "Timestamp" else f".{PACKAGE}.{kind}"
    return file


_POOL = descriptor_pool.Default()
_POOL.Add(_file())  # type: ignore[no-untyped-call]
MetricFamily: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.MetricFamily"))


def families(data: bytes) -> Iterator[Any]:
    """The delimited MetricFamily messages. Raises ValueError where a length is wrong."""
    at = 0
    while at < len(data):
        length = shift = 0
        while True:
            byte = data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if at + length > len(data):
            raise ValueError("a message is cut")
        yield MetricFamily.FromString(data[at : at + length])
        at += length
