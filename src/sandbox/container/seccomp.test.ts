import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answerOf, answers } from '#host/testing/seccomp-examples.ts';
import { allCapabilities, defaultCapabilities } from './capabilities.ts';
import { runtimeDefault, runtimeDefaultProgram, seccompOf } from './seccomp.ts';
import { syscallNumbers } from '#host/jail/syscall-numbers.ts';
import { security } from '../testing/examples.ts';

interface Rule {
  readonly names: readonly string[];
  readonly action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO';
  readonly errnoRet?: number;
  readonly args?: readonly {
    readonly index: number;
    readonly value: number;
    readonly valueTwo?: number;
    readonly op: string;
  }[];
}

const { allow, noSuchCall, killed } = answers;
const answersErrno = (errno: number) => 0x0005_0000 | errno;
const held = { none: [], default: defaultCapabilities, all: allCapabilities };
const numbers = [...new Set([...syscallNumbers.values(), ...Array.from({ length: 600 }, (_, number) => number)])];
/** Around the values that rules compare with. */
const argumentsTried = [
  0, 1, 2, 8, 16, 37, 38, 39, 40, 41, 0x0012_0011, 0x0200_0000, 0x4000_0000, 0x2_0008, 0xffff_ffff,
];

/** The answer of OCI's rules. */
function answerOfRules(rules: readonly Rule[], name: string, argument: number): number {
  const those = rules.filter(({ names }) => names.includes(name));
  const matching = those.find(({ args }) => args === undefined || args.every((test) => isTrue(test, argument)));
  if (matching === undefined) return noSuchCall;
  return matching.action === 'SCMP_ACT_ALLOW' ? allow : answersErrno(matching.errnoRet ?? 1);
}

function isTrue(
  { op, value, valueTwo = 0 }: { op: string; value: number; valueTwo?: number },
  argument: number,
): boolean {
  switch (op) {
    case 'SCMP_CMP_EQ':
      return argument === value;
    case 'SCMP_CMP_LT':
      return argument < value;
    case 'SCMP_CMP_GT':
      return argument > value;
    case 'SCMP_CMP_MASKED_EQ':
      return (argument & value) >>> 0 === valueTwo;
    default:
      return assert.fail(op);
  }
}

for (const [which, capabilities] of Object.entries(held)) {
  test(`runtimeDefaultProgram() answers every call as the profile does, with ${which} of the capabilities`, () => {
    const program = runtimeDefaultProgram(capabilities);
    const rules = runtimeDefault(capabilities)['syscalls'] as readonly Rule[];
    const names = new Map([...syscallNumbers].map(([name, number]) => [number, name]));
    for (const number of numbers) {
      for (const argument of argumentsTried) {
        const expected = answerOfRules(rules, names.get(number) ?? '', argument);
        assert.equal(answerOf(program, number, [argument]), expected, `${names.get(number) ?? number} ${argument}`);
      }
    }
  });
}

test('runtimeDefaultProgram() allows no call of another ABI', () => {
  const program = runtimeDefaultProgram(defaultCapabilities);
  for (const number of numbers) {
    assert.equal(answerOf(program, 0x4000_0000 | number), noSuchCall); // x32
    assert.equal(answerOf(program, number, [0], 0x4000_0003), killed); // 32 bits
  }
});

test('runtimeDefaultProgram() is half as long as a list with a comparison and an answer for each call', () => {
  for (const capabilities of Object.values(held)) {
    const instructions = runtimeDefaultProgram(capabilities).length / 8;
    assert.ok(instructions < syscallNumbers.size, `${instructions} instructions`);
  }
});

test('seccompOf() gives an agent of an earlier build the profile that crun compiles', () => {
  const wish = { ...security, seccomp: { kind: 'runtimeDefault' } } as const;
  assert.equal(typeof seccompOf(wish, defaultCapabilities, { takesPrograms: true }), 'string');
  assert.deepEqual(seccompOf(wish, defaultCapabilities, {}), runtimeDefault(defaultCapabilities));
});
