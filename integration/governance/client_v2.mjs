// The checks on the TypeScript SDK that speaks both revisions: MODE is legacy, auto or a revision.
import assert from 'node:assert/strict';
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { check, shim } from './checks.mjs';

const [mode, revision] = process.argv.slice(2);
const pinned = ['legacy', 'auto'].includes(mode) ? mode : { pin: mode };
const client = new Client({ name: 'checks', version: '1.0.0' }, { versionNegotiation: { mode: pinned } });
await client.connect(new StdioClientTransport(shim));
assert.equal(client.getNegotiatedProtocolVersion(), revision);
await check(client);
