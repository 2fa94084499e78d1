"""From a profile to what serves it."""

from broker.agents.acp.agent import AcpAgent
from broker.agents.echo.agent import EchoAgent
from broker.agents.kinds import kind_for
from broker.config.settings import AcpProfile, EchoProfile


def test_an_echo_profile_gives_an_echo():
    assert kind_for(EchoProfile(delay=0.5, chunk="char")) == EchoAgent(0.5, "char")


def test_an_acp_profile_gives_its_command_its_environment_and_how_it_is_run():
    agent = kind_for(AcpProfile(command=("run", "it"), env={"KEY": "hush"}, process="shared", protocol=1, capacity=3))
    assert isinstance(agent, AcpAgent)
    assert (agent.command, agent.env) == (("run", "it"), {"KEY": "hush"})
    assert (agent.process, agent.protocol, agent.capacity) == ("shared", 1, 3)


def test_an_acp_profile_without_a_capacity_has_no_limit():
    assert kind_for(AcpProfile(command=("run",))).capacity is None


def test_a_profiles_environment_is_not_in_the_repr():
    assert "hush" not in repr(kind_for(AcpProfile(command=("run",), env={"KEY": "hush"})))
