"""Options that many commands take."""

from pathlib import Path

import click


class Tenant(click.ParamType[str]):
    """A name that a key can have: what is said of another's rows would be of nobody's."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuses any other with exit code 2."""
        from gateway.keys import tenant_named

        try:
            return tenant_named(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("ratchet.yaml"),
    show_default=True,
    envvar="RATCHET_CONFIG",
    help="The configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for machines.")
