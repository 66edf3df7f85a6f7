import { InvalidArgumentError, Option } from 'commander';

const modes = ['cni', 'none'];

/** The option `--network` of commands that start pods. */
export const networkOption = (): Option =>
  new Option('--network <mode>', 'network of the pods')
    .choices(modes)
    .default('cni')
    .argParser((mode: string) => {
      if (modes.includes(mode)) return mode;
      const instead =
        mode === 'host'
          ? 'A machine has a network of its own: publish ports with -p'
          : 'Leave it out for that of the node';
      throw new InvalidArgumentError(`Allowed choices are ${modes.join(', ')}. ${instead}.`);
    });
