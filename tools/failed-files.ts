import type { TestEvent } from 'node:test/reporters';

/** Last line of the report of a run that came to its end, and ran a test. */
export const endMark = 'end';

/**
 * Reporter for Node's test runner: prints each file with a failed test, once, on a line of its own. Where files share a
 * process, a test that several files have in common is one of the file that has its text.
 */
// oxlint-disable-next-line no-default-export -- a reporter is its module's default export
export default async function* failedFiles(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const told = new Set<string>();
  let ran = false;
  for await (const { type, data } of events) {
    ran ||= type === 'test:pass' || type === 'test:fail';
    if (type !== 'test:fail') continue;
    const file = data.entryFile ?? data.file;
    if (file === undefined || told.has(file)) continue;
    told.add(file);
    yield `${file}\n`;
  }
  if (ran) yield `${endMark}\n`;
}
