/** An annotation of a pod that podvm acts on. */
interface PodAnnotation {
  readonly name: string;
  /** Allowed words, the default first; absent: `value` describes the allowed values. */
  readonly words?: readonly [string, ...string[]];
  /** Describes the allowed values, when they are not a list. */
  readonly value?: string;
  readonly about: string;
}

/** All annotations. `docs/reference/annotations.md` is printed from this table. */
export const podAnnotations = {
  template: {
    name: 'podvm.dev/template',
    words: ['on', 'namespace', 'off'],
    about:
      "Which template the pod's machine may be restored from: the node's, its namespace's, or none (the machine boots " +
      'by itself). For `podvm run`; under a kubelet the runtime class decides.',
  },
  kernelModules: {
    name: 'podvm.dev/kernel-modules',
    words: ['sealed', 'open'],
    about:
      "`open`: containers that have `CAP_SYS_MODULE` keep it, and may load modules into their machine's kernel. " +
      '`sealed`: no container has it.',
  },
  blockVolumes: {
    name: 'podvm.dev/block-volumes',
    value: 'absolute paths, separated by commas; at most 64',
    about:
      "hostPath volumes that are block devices or image files. The pod's machine mounts their ext4 file systems and " +
      'has them for itself.',
  },
  networkPolicy: {
    name: 'podvm.dev/network-policy',
    words: ['default', 'metadata'],
    about:
      '`metadata`: on the built-in network the pod also reaches link-local services other than DNS. Refused unless ' +
      "the node's setting `networkPolicy` is `asked`.",
  },
  ingressBandwidth: {
    name: 'kubernetes.io/ingress-bandwidth',
    value: 'quantity of bits per second, from `1k` to `1P`',
    about: 'Limit on what the pod receives. Needs the CNI plugin `bandwidth`, which the built-in network has.',
  },
  egressBandwidth: {
    name: 'kubernetes.io/egress-bandwidth',
    value: 'quantity of bits per second, from `1k` to `1P`',
    about: 'Limit on what the pod sends. Needs the CNI plugin `bandwidth`, which the built-in network has.',
  },
} as const satisfies Record<string, PodAnnotation>;
