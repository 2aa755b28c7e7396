"""Replies of workers to a request to all of them."""

from sluice.process.channel import ChannelReply, ChannelRequest
from sluice.process.rounds import Round, Rounds


class Crew:
    def __init__(self, *pids: int) -> None:
        self.now = 0.0
        self.sent: list[tuple[int, ChannelRequest]] = []
        self.done: list[Round] = []
        self.rounds = Rounds(lambda: self.now)
        self.pids = pids

    def ask(self) -> int:
        members = {pid: lambda request, pid=pid: self.sent.append((pid, request)) for pid in self.pids}
        self.rounds.ask(members, "prepare", b"x", 5.0, self.done.append)
        return self.sent[-1][1].id if self.sent else 0


def test_a_round_is_over_when_all_have_answered() -> None:
    crew = Crew(1, 2)
    number = crew.ask()
    assert [pid for pid, _ in crew.sent] == [1, 2]
    crew.rounds.answered(1, ChannelReply(number, "a"))
    assert not crew.done
    crew.rounds.answered(2, ChannelReply(number, "b"))
    [one] = crew.done
    assert {pid: answer.body for pid, answer in one.answers.items()} == {1: "a", 2: "b"}
    assert (one.problem, crew.rounds.due) == ("", None)


def test_a_worker_that_has_ended_is_not_waited_for_and_does_not_count() -> None:
    crew = Crew(1, 2)
    number = crew.ask()
    crew.rounds.answered(1, ChannelReply(number, problem="cannot"))
    crew.rounds.gone(1)
    crew.rounds.gone(2)
    [one] = crew.done
    assert (one.answers, one.problem) == ({}, "")


def test_a_round_ends_at_its_time_with_what_there_is() -> None:
    crew = Crew(1, 2)
    number = crew.ask()
    crew.rounds.answered(1, ChannelReply(number))
    crew.now = 4.9
    crew.rounds.tick()
    assert not crew.done
    crew.now = 5.0
    crew.rounds.tick()
    [one] = crew.done
    assert (one.waiting, one.problem) == ({2}, "a worker did not answer in time")
    crew.rounds.answered(2, ChannelReply(number))
    assert len(crew.done) == 1


def test_one_problem_is_that_of_all() -> None:
    crew = Crew(1, 2)
    number = crew.ask()
    crew.rounds.answered(1, ChannelReply(number))
    crew.rounds.answered(2, ChannelReply(number, problem="no memory"))
    assert crew.done[0].problem == "no memory"


def test_strangers_and_repeated_answers_are_ignored() -> None:
    crew = Crew(1, 2)
    number = crew.ask()
    crew.rounds.answered(9, ChannelReply(number))
    crew.rounds.answered(1, ChannelReply(number, "first"))
    crew.rounds.answered(1, ChannelReply(number, "second"))
    crew.rounds.answered(1, ChannelReply(number + 1))
    assert not crew.done
    crew.rounds.answered(2, ChannelReply(number))
    assert crew.done[0].answers[1].body == "first"


def test_a_round_without_members_is_over_at_once() -> None:
    crew = Crew()
    crew.ask()
    assert len(crew.done) == 1
