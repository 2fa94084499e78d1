"""From a profile to what serves it."""

from broker.agents.acp import AcpAgent
from broker.agents.echo import EchoAgent
from broker.agents.kinds import kind_for
from broker.config.settings import AcpProfile, Deadlines, EchoProfile


def test_an_echo_profile_gives_an_echo():
    assert kind_for(EchoProfile(delay=0.5, chunk="char")) == EchoAgent(0.5, "char")


def test_an_acp_profile_gives_its_command_environment_and_deadline():
    agent = kind_for(AcpProfile(command=("run", "it"), env={"KEY": "hush"}, deadlines=Deadlines(start=7)))
    assert isinstance(agent, AcpAgent)
    assert (agent.command, agent.env, agent.start_timeout) == (("run", "it"), {"KEY": "hush"}, 7)


def test_a_profiles_environment_is_not_in_the_repr():
    assert "hush" not in repr(kind_for(AcpProfile(command=("run",), env={"KEY": "hush"})))
