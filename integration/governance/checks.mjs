// What a client of a TypeScript SDK sees through the gate "notes"; throws when something is not as it must be.
import assert from 'node:assert/strict';

export const shim = {
  command: process.env.AVOUCH,
  args: ['gate', 'mcp', 'notes'],
  env: { AVOUCH_GATES: process.env.AVOUCH_GATES, PATH: process.env.PATH },
};

export async function check(client) {
  const call = (name, values) => client.callTool({ name, arguments: values });
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name).sort(), ['append', 'count', 'read']);
  assert.equal((await call('read', { path: 'a.txt' })).content[0].text, 'done: read a.txt');
  assert.equal((await call('count', { most: 3 })).content[0].text, 'done: count 3');
  const denied = await call('read', { path: 'secret/key' });
  assert.ok(denied.isError && denied.content[0].text.includes('was not called (denied'), JSON.stringify(denied));
  const asked = await call('append', { path: 'a.txt', text: 'b' });
  assert.ok(asked.isError && asked.content[0].text.includes('needs a yes'), JSON.stringify(asked));
  for (const tool of ['delete', 'publish', 'move', 'none']) {
    await assert.rejects(call(tool, { path: 'a' }), (error) => error.code === -32602 && /Unknown tool/.test(error.message));
  }
  assert.equal(client.getServerCapabilities()?.resources, undefined);
  await client.close();
}
