"""``python -m diffpath COMMAND``: the commands of the library, each loaded when it is called."""

import argparse
import importlib
import sys

# Command -> (module, one line of help). A module has add_arguments(parser) and run(arguments)
COMMANDS = {
    "models": (".models.cards", "list pretrained models that are known to be of use"),
    "convert": (".models.convert", "turn an improved-diffusion or guided-diffusion checkpoint into a diffusers folder"),
    "train": (".training.command", "train a diffusion model on folders of images"),
}


def main(argv=None):
    """Runs one command; an error that diffpath raises on purpose is printed as its one sentence.

    Args:
        argv: the arguments, by default the command line's

    Returns:
        the exit status: 0, or 1 after an error
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="python -m diffpath", description="Finds images that don't belong.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    called = argv[0] if argv else None
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == called:
            module = importlib.import_module(module, __package__)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except ValueError as error:
        print(f"diffpath {called}: {error}", file=sys.stderr)
        return 1
    return 0
