"""The body of one request, as it arrives."""

from sluice.server.incoming import Incoming


def test_a_body_is_kept_up_to_its_limit_and_counted_beyond_it() -> None:
    request = Incoming()
    request.add(b"abc", 5)
    request.add(b"de", 5)
    assert request.body() == b"abcde"
    request.add(b"f", 5)
    assert (request.body(), request.size) == (b"", 6)


def test_a_limit_of_its_own_counts_instead_of_the_parsers() -> None:
    request = Incoming(limit=10)
    request.add(b"abcdefgh", 5)
    assert request.body() == b"abcdefgh"


def test_a_body_is_one_object_however_often_it_is_read() -> None:
    request = Incoming()
    request.add(b"abc", 9)
    request.add(b"def", 9)
    assert request.body() is request.body()


def test_a_body_can_be_taken_piece_by_piece() -> None:
    request = Incoming()
    request.add(b"abc", 9)
    assert request.taken() == b"abc"
    request.add(b"def", 9)
    assert (request.taken(), request.taken(), request.size) == (b"def", b"", 6)


def test_a_request_shows_nothing_of_its_key() -> None:
    assert "secret" not in repr(Incoming(fields={"authorization": "Bearer secret"}))
