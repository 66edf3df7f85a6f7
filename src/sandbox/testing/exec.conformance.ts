import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Readable } from 'node:stream';
import { kindOf } from '#base/errors.ts';
import type { Container, ExecSpec } from '../sandbox.ts';

/** A running container, whose commands run until they are killed. */
export interface ExecHarness extends AsyncDisposable {
  readonly container: Pick<Container, 'exec'>;
}

const soon = () => AbortSignal.timeout(60_000);

/** The suite of commands in a container. */
export function describeExecs(name: string, open: () => Promise<ExecHarness>): void {
  describe(`commands in the ${name} container`, { timeout: 60_000 }, () => {
    let harness: ExecHarness;
    before(async () => {
      harness = await open();
    });
    after(async () => await harness[Symbol.asyncDispose]());
    const exec = (more: Partial<ExecSpec> = {}, signal = soon()) =>
      harness.container.exec({ command: ['sleep', '1000'], tty: false, stdin: false, ...more }, signal);

    test('have an input only if it is asked for, and errors apart only without a terminal', async () => {
      for (const [tty, stdin] of [
        [false, false],
        [false, true],
        [true, false],
        [true, true],
      ] as const) {
        const made = await exec({ tty, stdin });
        assert.deepEqual([made.stdin !== undefined, made.stderr !== undefined], [stdin, !tty]);
        await made.resize(80, 25);
        await made.kill(9);
        await made.exited;
      }
    });

    test('end by SIGKILL, with their output, and no longer read their input', async () => {
      const made = await exec({ stdin: true });
      const ended = [made.stdout, made.stderr ?? assert.fail()].map(endOf);
      await made.kill(9);
      assert.equal((await made.exited).exitCode, 137);
      await Promise.all(ended);
      assert.equal(made.stdin?.destroyed, true);
      await made.kill(9); // no error for an ended command
    });

    test('are not started for a caller that has left', async () => {
      await assert.rejects(exec({}, AbortSignal.abort()), (error) => {
        assert.equal(kindOf(error), 'cancelled');
        return true;
      });
    });
  });
}

function endOf(output: Readable): Promise<void> {
  return new Promise((resolve) => {
    output.once('end', resolve);
    output.once('close', resolve);
    output.resume();
  });
}
