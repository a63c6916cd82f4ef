"""Proxies of the environment: used for servers elsewhere, never for this machine, and named where they are none."""

import asyncio

import pytest

from rollouts.endpoints import proxies
from rollouts.endpoints.client import ChatClient, Endpoint
from rollouts.endpoints.meter import Meter, Spent
from rollouts.types import DialogueError, Message
from tests.builders.dialogues import FDS
from tests.faults.server import Server

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Without any proxy."""
    for name in (*VARIABLES, *map(str.lower, VARIABLES), "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def ask(url, meter=None, **options):
    """The answer, or the DialogueError."""

    async def run():
        endpoint, app = Endpoint(url, "m", **{"retries": 0} | options), FDS.embedded
        async with ChatClient("user", endpoint, meter=meter, embedded=app) as client:
            return await client.chat([Message("user", "Hm?")], seed=0)

    try:
        return asyncio.run(run())
    except DialogueError as error:
        return error


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_server_elsewhere_is_asked_through_the_proxy(environment, variable):
    with Server() as proxy:
        environment.setenv(variable, proxy.url.removesuffix("/v1"))
        assert ask("http://models.invalid:8000/v1") == "Grüß dich."
        assert [entry.target for entry in proxy.log] == ["http://models.invalid:8000/v1/chat/completions"]
        proxy.cue = lambda number, body: "error"
        assert f"through {variable} answered 500" in str(ask("http://models.invalid:8000/v1"))


def test_a_proxy_may_do_without_its_scheme_and_get_a_password(environment):
    with Server() as proxy:
        environment.setenv("HTTP_PROXY", f"me:s3cret@{proxy.url[7:-3]}")
        assert ask("http://models.invalid/v1") == "Grüß dich."
        assert proxy.log[0].headers["proxy-authorization"] == "Basic bWU6czNjcmV0"
        proxy.cue = lambda number, body: "refuse"
        assert "s3cret" not in str(ask("http://models.invalid/v1"))


def test_https_asks_for_a_tunnel_and_a_proxy_that_refuses_it_is_named(environment):
    with Server() as proxy:
        environment.setenv("HTTPS_PROXY", proxy.url.removesuffix("/v1"))
        meter = Meter("user", Endpoint("https://models.invalid/v1", "m"))
        error = ask("https://models.invalid/v1", meter)
        assert proxy.tunnels == ["models.invalid:443"] and not proxy.log
    assert error.cause == "user_unreachable" and "through HTTPS_PROXY" in str(error) and "403" in str(error)
    assert meter.read_total() == Spent(1)  # nobody can have done any work


def test_this_machine_is_asked_itself_beside_a_replica_elsewhere(environment):
    with Server() as proxy, Server() as server:
        environment.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        assert ask(server.url) == "Grüß dich."
        assert len(server.log) == 1 and not proxy.log

        async def run():
            endpoint = Endpoint(f"{server.url},http://models.invalid/v1", "m")
            async with ChatClient("user", endpoint) as client:
                await asyncio.gather(*(client.chat([Message("user", "Hm?")], seed=seed) for seed in range(4)))

        asyncio.run(run())
        assert len(server.log) == 3 and {entry.target[:22] for entry in proxy.log} == {"http://models.invalid/"}


def test_the_embedded_endpoint_and_a_replay_know_no_proxy(environment, tmp_path):
    environment.setenv("ALL_PROXY", "nonsense://")
    assert ask("embedded").cause == "user_http_400"  # it was asked, and knows no such model
    assert ask("http://127.0.0.1:9/v1", connect_timeout=0.5).cause == "user_unreachable"
    ChatClient("user", Endpoint("http://models.invalid/v1", "m"), replay=str(tmp_path))


@pytest.mark.parametrize(
    ("exempt", "direct"),
    [
        ("", False),
        ("*", True),
        ("other.example, .corp.example ,x", True),
        ("corp.example", True),
        ("*.corp.example", True),
        ("GPU.Corp.Example", True),
        ("gpu.corp.example:8000", True),
        ("gpu.corp.example:80", False),
        ("pu.corp.example", False),
        ("example", True),
        (".", False),
        ("::1,[::1],[", False),
    ],
)
def test_whom_no_proxy_names(environment, exempt, direct):
    environment.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    environment.setenv("NO_PROXY", exempt)
    assert (proxies.find_proxy("http://gpu.corp.example:8000/v1/") is None) == direct


@pytest.mark.parametrize(
    ("url", "exempt", "direct"),
    [
        ("http://10.1.2.3:8000/v1/", "10.0.0.0/8", True),
        ("http://10.1.2.3:8000/v1/", "10.1.2.3", True),
        ("http://10.1.2.3:8000/v1/", "10.1.2.4/31,192.168.0.0/16", False),
        ("http://[fd00::7]:8000/v1/", "fd00::/8", True),
        ("http://[fd00::7]:8000/v1/", "[fd00::7]:8000", True),
        ("http://[fd00::7]/v1/", "[fd00::7]:8000", False),
        ("http://localhost:8000/v1/", "", True),
        ("http://127.9.9.9/v1/", "", True),
        ("http://[::1]/v1/", "", True),
        ("https://models.invalid/v1/", "", True),  # there is one for http only
    ],
)
def test_addresses_and_networks(environment, url, exempt, direct):
    environment.setenv("http_proxy", "http://proxy.invalid:3128")
    environment.setenv("no_proxy", exempt)
    assert (proxies.find_proxy(url) is None) == direct


@pytest.mark.parametrize(
    "value",
    ["nonsense://x:1", "http://", "http://me:s3cret@x:99999", "http://s3cret\x7f", "http://x:s3cret", "socks9://x"],
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "all_proxy"])
def test_a_proxy_that_is_none_is_refused_by_its_variable_before_anybody_is_asked(environment, value, variable):
    environment.setenv(variable, value)
    with pytest.raises(ValueError, match=f"^{variable}: expected http.*NO_PROXY") as caught:
        ChatClient("user", Endpoint("http://models.invalid/v1", "m"))
    assert "s3cret" not in str(caught.value)
    environment.setenv("NO_PROXY", "models.invalid")
    ChatClient("user", Endpoint("http://models.invalid/v1", "m"))


def test_a_socks_proxy_says_what_it_needs(environment):
    environment.setenv("ALL_PROXY", "socks5://x:1080")
    try:
        import socksio  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"^ALL_PROXY: .* pip install 'httpx\[socks\]'"):
            ChatClient("user", Endpoint("http://models.invalid/v1", "m"))
