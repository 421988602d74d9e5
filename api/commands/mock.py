"""`firstcome mock`: the whole HTTP surface without any server behind it."""

from __future__ import annotations

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def mock(host: str, port: int) -> None:
    """Serve the mock API: every operation, answered from the specification's examples.

    `Prefer: code=409` and `Prefer: example=NAME` choose the answer. Tokens are asked for where a key is configured.
    """
    # Serving needs far more than saying how, which is all that `--help` does.
    import uvicorn  # noqa: PLC0415

    from api.commands.api import connection_limits  # noqa: PLC0415
    from api.commands.listening import CannotListen, http_url, listen  # noqa: PLC0415
    from api.guards.connections import limited_to  # noqa: PLC0415
    from api.mock import create_mock_app  # noqa: PLC0415
    from api.settings import ApiSettings  # noqa: PLC0415
    from engine.settings import SettingError  # noqa: PLC0415

    try:
        settings = ApiSettings.from_environment()
        app = create_mock_app(settings)
        listeners = listen(host, port)
    except (CannotListen, SettingError) as error:
        raise click.ClickException(str(error)) from error
    url = http_url(host, listeners[0].getsockname()[1])
    click.echo(f"Mock API on {url}  (its pages: /docs, /openapi.json)")
    http = limited_to(connection_limits(settings))
    config = uvicorn.Config(app, http=http, log_level="warning", access_log=False, proxy_headers=False)
    uvicorn.Server(config).run(sockets=listeners)
