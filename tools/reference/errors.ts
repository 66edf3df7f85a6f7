import { status } from '@grpc/grpc-js';
import { statusOfKind } from '../../src/admin/error-body.ts';
import { type ErrorKind, errorKinds } from '../../src/base/errors.ts';
import { codeOfKind } from '../../src/base/status-codes.ts';
import { fixesOfSystemErrors } from '../../src/host/advice.ts';
import { code, page, table } from './markdown.ts';

const meanings: Readonly<Record<ErrorKind, { readonly means: string; readonly remedy: string }>> = {
  invalid: { means: 'The input is wrong.', remedy: 'Correct the file, line, field or option that the message names.' },
  notFound: { means: 'The named thing does not exist.', remedy: 'Check the name: `podvm ps` and `podvm image ls`.' },
  alreadyExists: { means: 'The name is taken.', remedy: 'Choose another name, or remove what has it.' },
  busy: {
    means: 'Another process or operation holds the thing.',
    remedy: 'Try again later, or end what the message names.',
  },
  failedPrecondition: {
    means: 'The state of the thing, or of the node, does not allow the operation.',
    remedy: 'Change the state that the message names, then try again.',
  },
  denied: { means: 'Permission is missing.', remedy: 'Run as root; for a pull, check the credentials.' },
  exhausted: {
    means: 'A limit was reached, or memory, disk or another resource ran out.',
    remedy: 'Free the resource or ask for less. [Limits](../specification.md#limits) lists the fixed limits.',
  },
  timeout: {
    means: 'The operation took longer than its caller allowed.',
    remedy: 'Try again with more time; if the machine is overloaded, start fewer pods at once.',
  },
  cancelled: { means: 'The caller ended the operation.', remedy: 'None is needed.' },
  unavailable: {
    means: 'A part that is needed does not answer: a registry, a guest, a podvm process.',
    remedy: 'Try again. If it persists, run `podvm doctor`.',
  },
  unsupported: {
    means: 'PodVM does not do this.',
    remedy: 'See [limitations](../limitations.md) for what it does instead.',
  },
  corrupt: {
    means: 'Stored data failed a check.',
    remedy: 'Follow the fix in the message; a damaged image is fetched again by its next use.',
  },
  internal: { means: 'A bug in PodVM.', remedy: 'Report it with the message and the log.' },
};

export async function errorsPage(): Promise<string> {
  const kinds = errorKinds.map((kind) => [
    code(kind),
    `${status[codeOfKind[kind]]} (${codeOfKind[kind]})`,
    String(statusOfKind[kind]),
    meanings[kind].means,
    meanings[kind].remedy,
  ]);
  return await page(
    'Errors',
    '`src/base/errors.ts`, the tables of codes at both edges, and `src/host/advice.ts`',
    'Every error has a kind, a message of the form `Cannot VERB THING: REASON, got VALUE`, and, where an ' +
      'operator can act, a line that begins with `fix:`. The kind decides the code that clients see.',
    table(['kind', 'gRPC code (CRI)', 'HTTP status (admin socket)', 'meaning', 'what to do'], kinds),
    '## Errors of the system',
    'Errors of the kernel get these fixes, whichever operation met them.',
    table(
      ['error', 'fix'],
      Object.entries(fixesOfSystemErrors).map(([name, fix]) => [code(name), fix]),
    ),
    'Exit codes of the commands are in the [command reference](cli.md#exit-codes).',
  );
}
