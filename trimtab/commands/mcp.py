"""`trimtab mcp`: the MCP server on standard input and output."""

from __future__ import annotations

from trimtab.console import ConfigOption, fail, told
from trimtab.pipeline import Trimtab


def mcp(config: ConfigOption = None) -> None:
    """Serve compress, expand and plan to an agent, over MCP on standard input and output."""
    try:
        from trimtab.mcp import mcp_server
    except ImportError as missing:
        fail(str(missing))
    with told():
        server = mcp_server(Trimtab(config))
    server.run("stdio")
