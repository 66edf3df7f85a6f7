import { Option } from 'commander';
import { PodvmError } from '#base/errors.ts';

/** A flag of docker, podman or kubectl that podvm does not have. */
export interface RefusedFlag {
  readonly flags: string;
  /** Reason, as the end of a sentence. */
  readonly why: string;
  /** Advice, as one sentence. */
  readonly fix: string;
}

/** Options that exist only to be refused. */
export interface Refusals {
  /** Hidden from help. */
  readonly options: readonly Option[];
  /** `values`: of all options that were given. Errors: `unsupported` for the first of these. */
  readonly refuse: (values: Readonly<Record<string, unknown>>) => void;
}

export function refusalsOf(table: readonly RefusedFlag[]): Refusals {
  const rows = table.map((row) => ({ ...row, option: new Option(row.flags).hideHelp() }));
  return {
    options: rows.map(({ option }) => option),
    refuse(values) {
      for (const { option, why, fix } of rows) {
        const value = values[option.attributeName()];
        // A flag that begins with `no-` stands at true until it is given.
        if (value === undefined || (option.negate && value !== false)) continue;
        throw new PodvmError('unsupported', `Cannot use ${option.long ?? option.flags}: ${why}`, { fix });
      }
    },
  };
}

/** A flag of kubectl that commands about pods do not have. */
export const refusedNamespace: RefusedFlag = {
  flags: '-n, --namespace [value]',
  why: 'a pod is named with its namespace',
  fix: 'Name it NAMESPACE/NAME.',
};
