// The tools on the TypeScript SDK that speaks both revisions.
import { McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';
import { call, tools } from './tools.mjs';

serveStdio(() => {
  const server = new McpServer({ name: 'notes', version: '1.0.0' });
  for (const [name, { description, shape }] of Object.entries(tools)) {
    server.registerTool(name, { description, inputSchema: z.object(shape) }, async (values) => call(name, values));
  }
  return server;
});
