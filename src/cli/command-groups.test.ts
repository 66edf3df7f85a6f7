import assert from 'node:assert/strict';
import { test } from 'node:test';
import { commandGroups } from './command-groups.ts';
import { commandTable } from './commands.ts';
import type { Setting } from './program-parts.ts';

test('the help has each command in one group', () => {
  const setting = { parts: {}, global: () => ({}), exit: () => {}, untilEnded: () => Promise.resolve() };
  const rows = commandTable(setting as unknown as Setting); // SAFE: no command runs
  const grouped = Object.values(commandGroups).flat();
  assert.deepEqual(grouped.toSorted(), ['help', ...rows.map(({ name }) => name)].toSorted());
});
