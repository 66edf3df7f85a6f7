import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { PodvmError } from '#base/errors.ts';
import type { RegistryLogins } from '#api/registry-logins.ts';
import { type CommandRow, flag } from '../command-row.ts';
import type { EndSignals } from '../terminal/end-signals.ts';
import type { ProgramParts } from '../program-parts.ts';
import { type Terminal, write } from '../terminal/terminal.ts';

/** The default, as it is docker's. */
const dockerHub = 'docker.io';

interface LoginOptions {
  readonly username?: string;
  readonly passwordStdin: boolean;
  readonly authfile?: string;
  readonly insecure: boolean;
}

const authfileOption = () =>
  new Option('--authfile <file>', "file with logins; default: the user's own, as podman has it, or REGISTRY_AUTH_FILE");
const pathOf = (authfile: string | undefined) => (authfile === undefined ? {} : { authfile: resolve(authfile) });

/** The commands that write and remove logins. */
export function loginCommands(
  { login, logout, terminal }: Pick<ProgramParts, 'login' | 'logout' | 'terminal'>,
  untilEnded: (use: (ends: EndSignals) => Promise<void>) => Promise<void>,
): readonly CommandRow[] {
  return [
    {
      name: 'login',
      description: 'log in to a registry, for the images that you run and pull',
      arguments: [
        ['[registry]', `for example registry.example, or a part: registry.example/team (default: ${dockerHub})`],
      ],
      options: [
        new Option('-u, --username <name>', 'user name; default: a prompt'),
        flag('--password-stdin', 'read the password from standard input'),
        authfileOption(),
        flag('--insecure', 'allow plain HTTP and any certificate'),
      ],
      async action(registry: string | undefined, options: LoginOptions, itself: Command) {
        const { authfile, passwordStdin, username } = options;
        if (passwordStdin && username === undefined) itself.error('error: --password-stdin needs --username');
        if (!passwordStdin) requireQuestions(terminal);
        await untilEnded(({ any }) => login({ ...options, registry: registry ?? dockerHub, ...pathOf(authfile) }, any));
      },
    },
    {
      name: 'logout',
      description: 'remove the login to a registry',
      arguments: [['[registry]', `as it was given to login (default: ${dockerHub})`]],
      options: [flag('-a, --all', 'remove all logins of the file'), authfileOption()],
      async action(
        registry: string | undefined,
        { all, authfile }: { readonly all: boolean; readonly authfile?: string },
        itself: Command,
      ) {
        if (all && registry !== undefined) itself.error('error: specify either a registry or --all');
        const which = all ? {} : { registry: registry ?? dockerHub };
        await untilEnded(({ any }) => logout({ ...which, ...pathOf(authfile) }, any));
      },
    },
  ];
}

function requireQuestions({ stdin }: Terminal): void {
  if (stdin.isTTY) return;
  throw new PodvmError('invalid', 'Cannot ask for the password: standard input is not a terminal', {
    fix: 'Give it with --username NAME --password-stdin.',
  });
}

/** The user's logins for images, for a request that names these. Prints why others cannot be used. */
export async function loginsFor(
  images: () => Promise<readonly string[]>,
  { userLogins, terminal }: Pick<ProgramParts, 'userLogins' | 'terminal'>,
  signal: AbortSignal,
  authfile?: string,
): Promise<{ readonly logins?: RegistryLogins }> {
  const { logins, warnings } = await userLogins(images, authfile, signal);
  for (const warning of warnings) await write(terminal.stderr, `podvm: warning: ${warning}\n`);
  // Sent only when there are some: a node of an earlier version refuses what it does not know.
  return logins.length === 0 ? {} : { logins: [...logins] };
}
