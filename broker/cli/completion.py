"""The command `completion`: has a shell complete commands, flags and names."""

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

WHERE = {
    "bash": "echo 'eval \"$(broker completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(broker completion zsh)\"' >> ~/.zshrc",
    "fish": "broker completion fish > ~/.config/fish/completions/broker.fish",
}


@click.command("completion", epilog="  ".join(f"{shell}: {how}" for shell, how in WHERE.items()))
@click.argument("shell", type=click.Choice(list(WHERE)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what has a SHELL complete commands and flags."""
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(made(context.find_root().command, {}, "broker", "_BROKER_COMPLETE").source())
