import assert from 'node:assert/strict';

/**
 * Programs of classic BPF (kernel, `Documentation/networking/filter.rst`) over one frame, whose first byte is the first
 * of its Ethernet header. The kernel compiles them, and every distribution's kernel has `cls_bpf`; some lack the actions
 * that count or drop (`act_gact`, `act_police`).
 */
export type Step =
  | { readonly kind: 'label'; readonly name: string }
  | { readonly kind: 'plain'; readonly code: number; readonly k: number }
  /** A missing label means the next step. */
  | { readonly kind: 'jump'; readonly code: number; readonly k: number; readonly yes?: string; readonly no?: string };

export interface Instruction {
  readonly code: number;
  readonly jt: number;
  readonly jf: number;
  readonly k: number;
}

/** `TC_ACT_SHOT` (drops and counts) and `TC_ACT_UNSPEC` (continues with the next filter) of linux/pkt_cls.h. */
export const verdicts = { drop: 2, next: 0xffff_ffff } as const;

const plain = (code: number, k: number): Step => ({ kind: 'plain', code, k: k >>> 0 });
const jump = (code: number, k: number, yes?: string, no?: string): Step => ({
  kind: 'jump',
  code,
  k: k >>> 0,
  ...(yes === undefined ? {} : { yes }),
  ...(no === undefined ? {} : { no }),
});

/** Load into the accumulator from an offset in the frame. */
export const word = (at: number) => plain(0x20, at);
export const half = (at: number) => plain(0x28, at);
export const byte = (at: number) => plain(0x30, at);
/** Loads the length of the frame in bytes. */
export const frameLength = plain(0x80, 0);
/** `SKF_AD_VLAN_TAG_PRESENT` of linux/filter.h: the kernel has already removed the tag from the frame. */
export const vlanTagPresent = plain(0x30, 0xffff_f000 + 48);
export const masked = (mask: number) => plain(0x54, mask);

export const label = (name: string): Step => ({ kind: 'label', name });
export const goTo = (name: string) => jump(0x05, 0, name);
export const ifIs = (value: number, yes: string) => jump(0x15, value, yes);
export const unlessIs = (value: number, no: string) => jump(0x15, value, undefined, no);
export const ifAny = (bits: number, yes: string) => jump(0x45, bits, yes);
export const ifBelow = (value: number, yes: string) => jump(0x35, value, undefined, yes);
export const end = (verdict: number) => plain(0x06, verdict);

/** Maximum distance of a conditional jump. */
const maxJump = 255;

/** Resolves labels. Classic BPF only jumps forward. */
export function assemble(steps: readonly Step[]): readonly Instruction[] {
  const places = new Map<string, number>();
  let at = 0;
  for (const step of steps) {
    if (step.kind !== 'label') at += 1;
    else {
      assert(!places.has(step.name), `duplicate label ${step.name}`);
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

/** The format of `tc filter ... bpf bytecode`. */
export const bytecodeOf = (program: readonly Instruction[]): string =>
  `${program.length},${program.map(({ code, jt, jf, k }) => `${code} ${jt} ${jf} ${k}`).join(',')}`;
