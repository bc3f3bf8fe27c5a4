"""The policy server: the same actions as a call of the policy, for many at once, whatever else clients send."""

from __future__ import annotations

import gc
import pickle
import socket
import threading
import urllib.request
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from align.serve import served as serving
from align.serve import server as server_module
from align.serve.served import Served, serving_clouds
from align.serve.server import PolicyServer, Terms
from pretrain.model.policy_kinecloud import KinecloudPolicy
from tests.serve_client import Client, Refusal, packed, running, unpacked, until
from tests.serve_policies import observation, tiny_policy


@pytest.fixture(scope="module")
def policy() -> KinecloudPolicy:
    return tiny_policy()


@pytest.fixture(scope="module")
def server(policy: KinecloudPolicy) -> Iterator[tuple[int, PolicyServer]]:
    with running(serving_clouds(policy), Terms(port=0, message_bytes=200_000)) as found:
        yield found


@pytest.fixture
def client(server: tuple[int, PolicyServer]) -> Iterator[Client]:
    with Client(server[0]) as found:
        yield found


def test_actions_are_those_of_the_policy(client: Client, policy: KinecloudPolicy) -> None:
    more = {"past_visible_PN": np.ones((4, 20), bool), "past_opening_P": np.array([np.nan, 0.02, 0.03, 0.03])}
    more["past_grasp_P3"] = np.full((4, 3), 0.5, np.float32)
    for asked in (observation(1), observation(2), observation(3, **more)):
        answer = client.ask(**asked)
        expected = policy.act(**asked)
        assert np.ptp(expected) > 0
        np.testing.assert_array_equal(answer["actions"], expected)
        assert answer["server_timing"].keys() >= {"infer_ms", "wait_ms"}
        arrays = [name for name, value in answer.items() if isinstance(value, np.ndarray)]
        assert arrays == ["actions"]  # openpi's ActionChunkBroker cuts every array into steps


def test_a_message_may_come_in_parts(client: Client, policy: KinecloudPolicy) -> None:
    message = packed(observation())
    client.socket.send([message[:5], message[5:4000], message[4000:]])
    answer = unpacked(client.socket.recv(timeout=30))
    np.testing.assert_array_equal(answer["actions"], policy.act(**observation()))


def test_eight_clients_at_once_get_their_own_actions(server: tuple[int, PolicyServer], policy: KinecloudPolicy) -> None:
    together = threading.Barrier(8)

    def talk(number: int) -> None:
        with Client(server[0]) as client:
            together.wait(30)
            for turn in range(5):
                asked = observation(100 * number + turn)
                np.testing.assert_array_equal(client.ask(**asked)["actions"], policy.act(**asked))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(talk, range(8)))


def test_the_metadata_tells_what_to_send_and_what_comes(client: Client, policy: KinecloudPolicy) -> None:
    told = client.metadata
    assert told["answer"]["actions"] == {
        "dtype": "float32", "shape": [4, 3], "names": ["dx", "dy", "dz"], "unit": "m", "frame": "camera",
        "mode": "delta", "rate_hz": 20.0,
    }  # fmt: skip
    assert [field["name"] for field in told["observation"] if field["required"]] == [
        "image_u8_HW3", "instruction", "intrinsics_33", "proprio", "embodiment", "past_clouds_PN3", "past_valid",
    ]  # fmt: skip
    assert told["normalization"]["action"]["q99"] == policy.get_buffer("action_q99").tolist()
    assert told["embodiments"] == ["human-hand", "sawyer-gripper", "unknown"]
    assert told["depth_needed"] is False and told["image"]["size"] == 32


WRONG = [
    ({"proprio": np.zeros(5, np.float32)}, r"proprio: found float32 \[5\]; expected float32 or float64 \[3\]. Its"),
    ({"image_u8_HW3": np.zeros((8, 8, 3))}, r"image_u8_HW3: found float64 \[8, 8, 3\]; expected uint8 \[H, W, 3\]"),
    ({"image_u8_HW3": np.zeros((2049, 2, 3), np.uint8)}, r"image_u8_HW3: found uint8 \[2049, 2, 3\]; expected at most"),
    ({"image_u8_HW3": [1, 2]}, "image_u8_HW3: found a value of type list; expected text, a number or an array"),
    ({"embodiment": "octopus"}, "embodiment: found 'octopus'; expected one of human-hand, sawyer-gripper, unknown"),
    ({"past_clouds_PN3": np.full((4, 20, 3), np.nan)}, "past_clouds_PN3: found 240 values that are not finite"),
    ({"past_clouds_PN3": np.zeros((3, 20, 3))}, r"found float64 \[3, 20, 3\]; expected float32 or float64 \[4, N, 3\]"),
    ({"past_visible_PN": np.ones((4, 9), bool)}, r"past_visible_PN: found bool \[4, 9\]; expected bool \[4, 20\]"),
    ({"intrinsics_33": np.diag([-1.0, 1, 1])}, "intrinsics_33: found .* expected finite, fx > 0, fy > 0"),
    ({"past_opening_P": np.array([-1.0, 0, 0, 0])}, "past_opening_P: found -1 to 0; expected at least 0"),
    ({"instruction": "x" * 2001}, "instruction: found a text of 2001 characters; expected text of up to 2000"),
    ({"instruction": 7}, "instruction: found 7; expected text"),
    ({"propio": np.zeros(3)}, "propio: found an unknown field; .*Did you mean proprio?"),
    ({"depth_HW": np.zeros((48, 64))}, "depth_HW: found an unknown field"),
    ({"proprio": np.array([1e38, 0, 0], np.float32)}, "actions: found values that are not finite"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_what_does_not_fit_is_named_and_the_connection_goes_on(
    client: Client, policy: KinecloudPolicy, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refusal, match=message):
        client.ask(**observation(**change))
    np.testing.assert_array_equal(client.ask(**observation())["actions"], policy.act(**observation()))


def test_everything_that_is_wrong_is_told_at_once(client: Client) -> None:
    asked = observation(proprio=np.zeros(3), embodiment="squid")
    del asked["image_u8_HW3"], asked["past_valid"]
    told = client.refusal(**asked).splitlines()
    assert [line.split(":")[0] for line in told] == ["image_u8_HW3", "embodiment", "past_valid"]
    assert all("; expected " in line for line in told)
    assert "found nothing; expected bool [4]. Send it with every observation." in told[2]


class Harmful:
    """Whoever unpickles it makes a folder."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (self.path,)


def test_no_message_ends_a_connection_or_is_executed(client: Client, policy: KinecloudPolicy, tmp_path: Any) -> None:
    harmful = pickle.dumps(Harmful(str(tmp_path / "made")))
    objects = {b"__ndarray__": True, b"data": harmful, b"dtype": "|O", b"shape": [1]}
    for message in (b"", b"\xc1", packed(observation())[:-9], harmful, packed([1]), packed({"image_u8_HW3": objects})):
        with pytest.raises(Refusal, match=r"message: found|dtype '\|O'; expected one of b1"):
            client.say(message)
    with pytest.raises(Refusal, match="message: found a text frame; expected a binary frame"):
        client.say("hello")
    assert not (tmp_path / "made").exists()
    np.testing.assert_array_equal(client.ask(**observation())["actions"], policy.act(**observation()))


def test_a_message_that_is_too_large_closes_its_connection_only(server: tuple[int, PolicyServer]) -> None:
    with Client(server[0]) as other:
        with Client(server[0]) as client, pytest.raises(ConnectionClosed) as closed:
            client.say(bytes(300_000))
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
        assert "actions" in other.ask(**observation())


def test_a_killed_client_leaves_nothing_behind(server: tuple[int, PolicyServer], monkeypatch: Any) -> None:
    port, itself = server
    sessions: weakref.WeakSet[Any] = weakref.WeakSet()
    made = serving.CloudSession.__init__

    def watched(session: Any, *arguments: Any) -> None:
        made(session, *arguments)
        sessions.add(session)

    monkeypatch.setattr(serving.CloudSession, "__init__", watched)
    with Client(port) as other:
        for _ in range(3):
            killed = Client(port)
            killed.socket.socket.sendall(b"\x82\xfe\x10\x00" + bytes(100))  # the first part of a frame of 4096 bytes
            killed.socket.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: len(itself.clients) == 1)
        gc.collect()
        assert len(sessions) == 1
        assert "actions" in other.ask(**observation())


class Patient:
    """A session whose answers wait for a sign."""

    def __init__(self, sign: threading.Event):
        self.sign, self.asked = sign, 0

    def answer(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        assert self.sign.wait(30)
        return {"actions": np.zeros((4, 3), np.float32)}


@pytest.fixture
def patient(policy: KinecloudPolicy) -> Iterator[tuple[Served, Patient]]:
    session = Patient(threading.Event())
    yield replace(serving_clouds(policy), begin=lambda: session), session
    session.sign.set()


def test_who_would_wait_too_long_is_told_at_once(patient: tuple[Served, Patient]) -> None:
    served, session = patient
    with running(served, Terms(port=0, waiting=2)) as (port, server), ThreadPoolExecutor(3) as threads:
        clients = [Client(port) for _ in range(4)]
        first = [threads.submit(client.ask) for client in clients[:3]]
        until(lambda: server._model._places._value == 0)  # one is thought about, two wait
        assert clients[3].refusal() == "busy: 2 requests are waiting for the model. Try again later."
        session.sign.set()
        assert all("actions" in answer.result(30) for answer in first)
        assert "actions" in clients[3].ask()
        for client in clients:
            client.socket.close()


def test_requests_of_the_dead_are_not_answered(patient: tuple[Served, Patient]) -> None:
    served, session = patient
    with running(served) as (port, server), Client(port) as client, ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.ask)
        until(lambda: session.asked == 1)
        dead = [Client(port) for _ in range(5)]
        for other in dead:
            other.socket.send(packed({}))
            other.socket.close()
        session.sign.set()
        assert "actions" in first.result(30)
        until(lambda: len(server.clients) == 1)
        assert "actions" in client.ask()
        assert session.asked == 2


def test_a_client_that_does_not_take_its_answers_is_cut_off(
    patient: tuple[Served, Patient], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, session = patient
    monkeypatch.setattr(session, "answer", lambda asked: {"actions": np.zeros(10_000_000)})
    monkeypatch.setattr(server_module, "SEND_S", 0.2)
    upgrade = (
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with running(served) as (port, server), socket.create_connection(("127.0.0.1", port)) as deaf:
        deaf.sendall(upgrade.encode() + b"\x82\x81" + bytes(4) + packed({}))  # one frame, masked with zeros
        until(lambda: len(server.clients) == 1)
        until(lambda: not server.clients)


def test_what_was_asked_before_the_end_is_answered(patient: tuple[Served, Patient]) -> None:
    served, session = patient
    with ThreadPoolExecutor(1) as threads:
        with running(served) as (port, _):
            client, idle = Client(port), Client(port)
            asked = threads.submit(client.ask)
            until(lambda: session.asked == 1)
            threading.Timer(0.2, session.sign.set).start()
        assert "actions" in asked.result(30)
    for one in (client, idle):
        with pytest.raises(ConnectionClosed) as closed:
            one.socket.recv(timeout=30)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001


def test_a_bug_costs_its_connection_and_is_not_told_to_strangers(
    policy: KinecloudPolicy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(serving_clouds(policy)) as (port, _), Client(port) as client:
        monkeypatch.setattr(policy, "act", lambda **_: {}["secret"])
        assert client.refusal(**observation()).startswith("internal error: the server's log tells more.")
        with pytest.raises(ConnectionClosed):
            client.socket.recv(timeout=30)
        monkeypatch.undo()
        with Client(port) as another:
            assert "actions" in another.ask(**observation())
    assert "KeyError: 'secret'" in capsys.readouterr().err


def test_only_who_knows_the_token_comes_in(policy: KinecloudPolicy) -> None:
    with running(serving_clouds(policy), Terms(port=0, token="open sesame")) as (port, _):
        for wrong in (None, "open", "open sesam\u00e9"):
            with pytest.raises(InvalidStatus) as refused:
                Client(port, wrong)
            assert refused.value.response.status_code == 401
        with Client(port, "open sesame") as client:
            assert "actions" in client.ask(**observation())
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30).read() == b"OK\n"


def test_pages_in_a_browser_do_not_come_in(server: tuple[int, PolicyServer]) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://127.0.0.1:{server[0]}", origin=Origin("http://a.page")),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_no_more_clients_than_agreed(policy: KinecloudPolicy) -> None:
    with running(serving_clouds(policy), Terms(port=0, clients=1)) as (port, server):
        with Client(port), pytest.raises(InvalidStatus) as refused:
            Client(port)
        assert refused.value.response.status_code == 503
        until(lambda: not server.clients)
        with Client(port) as client:
            assert "actions" in client.ask(**observation())
