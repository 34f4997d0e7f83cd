"""A client of the Python SDK: what it sees through the gate "notes". Exit 0 = all as it must be."""

import os
import sys

import anyio
from mcp import Client, MCPError, StdioServerParameters

MODE, REVISION = sys.argv[1:]


async def refused(client: Client, tool: str, **arguments: object) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error, (tool, result)
    return result.content[0].text


async def unknown(client: Client, tool: str) -> None:
    try:
        result = await client.call_tool(tool, {"path": "a"})
    except MCPError as error:
        assert error.error.code == -32602 and "Unknown tool" in error.error.message, error
    else:
        raise AssertionError(f"{tool}: {result}")


async def main() -> None:
    gate = {"AVOUCH_GATES": os.environ["AVOUCH_GATES"]}
    shim = StdioServerParameters(command=os.environ["AVOUCH"], args=["gate", "mcp", "notes"], env=gate)
    async with Client(shim, mode=MODE, read_timeout_seconds=30) as client:
        assert client.protocol_version == REVISION, client.protocol_version
        assert client.server_capabilities.resources is None, client.server_capabilities
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"append", "count", "read"}, tools
        done = await client.call_tool("read", {"path": "a.txt"})
        assert not done.is_error and done.content[0].text == "done: read a.txt", done
        done = await client.call_tool("count", {"most": 3})
        assert done.content[0].text == "done: count 3", done
        assert "was not called (denied" in await refused(client, "read", path="secret/key")
        assert "needs a yes" in await refused(client, "append", path="a.txt", text="b")
        for tool in ("delete", "publish", "move", "none"):
            await unknown(client, tool)
        try:
            await client.list_resources()
        except MCPError:
            pass
        else:
            raise AssertionError("resources passed the gate")


anyio.run(main)
