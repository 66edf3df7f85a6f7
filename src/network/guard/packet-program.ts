import assert from 'node:assert/strict';

/**
 * Programs of classic BPF (kernel, `Documentation/networking/filter.rst`) over one frame, whose first byte is the first
 * of its Ethernet header. The kernel compiles them, and `cls_bpf` is in every distribution's kernel; actions that count
 * or drop by themselves (`act_gact`, `act_police`) are missing on some.
 */
export type Step =
  | { readonly kind: 'label'; readonly name: string }
  | { readonly kind: 'plain'; readonly code: number; readonly k: number }
  /** A missing label is the next step. */
  | { readonly kind: 'jump'; readonly code: number; readonly k: number; readonly yes?: string; readonly no?: string };

export interface Instruction {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

/** `TC_ACT_SHOT` and `TC_ACT_UNSPEC` of linux/pkt_cls.h: dropped and counted; left to the next filter. */
export const verdicts = { drop: 2, next: 0xffff_ffff } as const;

const plain = (code: number, k: number): Step => ({ kind: 'plain', code, k: k >>> 0 });
const jump = (code: number, k: number, yes?: string, no?: string): Step => ({
  kind: 'jump',
  code,
  k: k >>> 0,
  ...(yes === undefined ? {} : { yes }),
  ...(no === undefined ? {} : { no }),
});

/** Loads of the accumulator, from an offset in the frame. */
export const word = (at: number) => plain(0x20, at);
export const half = (at: number) => plain(0x28, at);
export const byte = (at: number) => plain(0x30, at);
/** Bytes of the frame. */
export const frameLength = plain(0x80, 0);
/** `SKF_AD_VLAN_TAG_PRESENT` of linux/filter.h: the kernel has taken the tag out of the frame by then. */
export const vlanTagPresent = plain(0x30, 0xffff_f000 + 48);
export const masked = (mask: number) => plain(0x54, mask);

export const label = (name: string): Step => ({ kind: 'label', name });
export const goTo = (name: string) => jump(0x05, 0, name);
export const ifIs = (value: number, yes: string) => jump(0x15, value, yes);
export const unlessIs = (value: number, no: string) => jump(0x15, value, undefined, no);
export const ifAny = (bits: number, yes: string) => jump(0x45, bits, yes);
export const ifBelow = (value: number, yes: string) => jump(0x35, value, undefined, yes);
export const end = (verdict: number) => plain(0x06, verdict);

/** Longest way of a conditional jump. */
const maxJump = 255;

/** Resolves labels. Classic BPF has jumps forward alone. */
export function assemble(steps: readonly Step[]): readonly Instruction[] {
  const places = new Map<string, number>();
  let at = 0;
  for (const step of steps) {
    if (step.kind !== 'label') at += 1;
    else {
      assert(!places.has(step.name), `the label ${step.name} is there twice`);
      places.set(step.name, at);
    }
  }
  return steps.filter((step) => step.kind !== 'label').map((step, index) => resolve(step, index, places));
}

function resolve(
  step: Exclude<Step, { kind: 'label' }>,
  index: number,
  places: ReadonlyMap<string, number>,
): Instruction {
  const { code, k } = step;
  if (step.kind === 'plain') return { code, jt: 0, jf: 0, k };
  const wayTo = (name: string | undefined) => (name === undefined ? 0 : (places.get(name) ?? NaN) - index - 1);
  const [jt, jf] = [wayTo(step.yes), wayTo(step.no)];
  assert(jt >= 0 && jf >= 0 && jt <= maxJump && jf <= maxJump, `no way from step ${index} to ${step.yes ?? step.no}`);
  return code === 0x05 ? { code, jt: 0, jf: 0, k: jt } : { code, jt, jf, k };
}

/** As `tc filter ... bpf bytecode` takes it. */
export const bytecodeOf = (program: readonly Instruction[]): string =>
  `${program.length},${program.map(({ code, jt, jf, k }) => `${code} ${jt} ${jf} ${k}`).join(',')}`;
