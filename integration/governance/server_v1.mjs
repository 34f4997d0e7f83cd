// The tools on the TypeScript SDK that speaks the handshake revision alone.
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { call, tools } from './tools.mjs';

const server = new McpServer({ name: 'notes', version: '1.0.0' });
for (const [name, { description, shape }] of Object.entries(tools)) {
  server.registerTool(name, { description, inputSchema: shape }, async (values) => call(name, values));
}
await server.connect(new StdioServerTransport());
