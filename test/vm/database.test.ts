import { describe, test } from 'node:test';
import { DatabaseNode } from '../databases/database-node.ts';
import { databases } from '../databases/database-pod.ts';
import { whyNoVm } from './node.ts';

/** One round of `npm run chaos -- --databases`, with the most different cases. */
const written = databases.filter(({ name }) =>
  ['postgres-share', 'postgres-block', 'sqlite-delete-share', 'sqlite-wal-block', 'sqlite-wal-scratch'].includes(name),
);

describe('databases that write', { skip: await whyNoVm(), timeout: 600_000 }, () => {
  test('lose no committed row when their daemon is killed and replaced, and then the host loses power', async () => {
    await using node = await DatabaseNode.open();
    await node.loseNothing({ databases: written, isAdopted: true, end: 'the power is cut', rows: 20 });
  });
});
