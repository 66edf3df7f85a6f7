import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import { programDirectory } from '#host/program-files.ts';

/** A Debian package of the host, and the program that shows its presence. */
export interface HostTool {
  readonly package: string;
  /** Absolute path. */
  readonly program: string;
  readonly purpose: string;
  /** Whether only set-up needs it, to make parts; `podvm setup --from` does not. */
  readonly makesParts: boolean;
  /** Whether only pods of ordinary users need it. */
  readonly forUsers: boolean;
}

/** Reads `host-packages.txt`, which the shell script `podvm` also reads. Errors: `internal` for a bad line. */
export async function readHostTools(): Promise<readonly HostTool[]> {
  return parseHostTools(await readFile(join(programDirectory, 'src/setup/host-packages.txt'), 'utf8'));
}

export function parseHostTools(text: string): readonly HostTool[] {
  return text
    .split('\n')
    .filter((line) => line.trim() !== '' && !line.startsWith('#'))
    .map((line) => {
      const match = /^([a-z0-9.+-]+)\s+(\/\S+)\s+(?:\((parts|users)\) )?(.+)$/.exec(line);
      const [, name, program, only, purpose] = match ?? [];
      if (name === undefined || program === undefined || purpose === undefined) {
        throw new PodvmError(
          'internal',
          `Cannot read host-packages.txt: expected "package /program purpose", got ${line}`,
        );
      }
      return { package: name, program, purpose, makesParts: only === 'parts', forUsers: only === 'users' };
    });
}

/** The tools whose program is missing. */
export async function missingHostTools(tools: readonly HostTool[]): Promise<readonly HostTool[]> {
  const found = await Promise.all(tools.map((tool) => isThere(tool.program)));
  return tools.filter((_, index) => found[index] !== true);
}
