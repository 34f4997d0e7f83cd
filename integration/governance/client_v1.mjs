// The checks on the TypeScript SDK that speaks the handshake revision alone.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { check, shim } from './checks.mjs';

const client = new Client({ name: 'checks', version: '1.0.0' });
await client.connect(new StdioClientTransport(shim));
await check(client);
