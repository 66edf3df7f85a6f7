/**
 * Every limit of the wire, in one table. Both ends enforce each number and are tested at the limit; the peer is never
 * trusted to keep it. Bytes unless the name says otherwise.
 */
export const limits = {
  /** Payload of a message frame (stream 0, JSON), and of a part of a call. */
  maxMessageBytes: 256 * 1024,
  /** A call with all its parts. The kernel accepts 2 MiB of arguments and variables, which JSON may have to escape. */
  maxCallBytes: 8 * 1024 * 1024,
  /** Payload of a data frame to the agent, and to a host that does not take more. */
  maxDataBytes: 16 * 1024,
  /**
   * Payload of a data frame to a host that says that it takes as much. A frame costs the agent a wake-up and hundreds of steps of
   * its interpreter. With its header it is two writes to a virtio-serial port, and short enough that streams share the channel.
   */
  maxOutputBytes: 64 * 1024 - 20,
  /** Open streams of one channel. */
  maxStreams: 1024,
  /** Data that the agent may have in transit on one stream before the host grants more. */
  streamWindowBytes: 128 * 1024,
  /** The same for the host: the agent keeps what a process has not read yet, and its heap is small. */
  agentWindowBytes: 32 * 1024,
  /** Calls of the host without an answer. */
  maxPendingCalls: 256,
  /** Events that wait for the host in the agent; log lines are dropped first, `exited` never. */
  maxQueuedEvents: 1024,
  /** Bytes that wait in the agent to be written to the channel before it stops reading from processes. */
  maxQueuedWriteBytes: 512 * 1024,
  /** Raw bytes in one `pushFile`, and in one `readFile`. */
  maxPushPartBytes: 64 * 1024,
  /** Files' bytes of one push volume: a Secret or ConfigMap is at most 1 MiB, a projected volume joins several. */
  maxPushVolumeBytes: 16 * 1024 * 1024,
  /** One text field, such as the value of a sysctl. */
  maxTextBytes: 128 * 1024,
  /** One argument or variable including the final NUL: the kernel's MAX_ARG_STRLEN. */
  maxArgumentBytes: 128 * 1024,
  /** Arguments or variables of one process: as many as fit into the kernel's 2 MiB. */
  maxArguments: 256 * 1024,
  /** Arguments and variables of all containers of a machine, which the agent keeps for later execs. */
  maxKeptArgumentBytes: 16 * 1024 * 1024,
  /** Whole text of /etc/hosts, and of /etc/resolv.conf. */
  maxEtcFileBytes: 1024 * 1024,
  /** Items of a list in a message. */
  maxListItems: 4096,
  /** A raw termination message: kubelet's limit. */
  maxTerminationBytes: 4096,
  maxContainers: 256,
  maxExecs: 128,
  maxVolumes: 256,
  /** Bytes that one request reads from or writes to a file of a shared volume. */
  shareDataBytes: 128 * 1024,
  maxDisks: 256,
  /** Reported interfaces of the pod's network; a container with CAP_NET_ADMIN can make any number. */
  maxInterfaces: 32,
  /** Processes of a container that `metrics` inspects one by one, and their descriptors. */
  maxCountedProcesses: 256,
  maxCountedDescriptors: 1024,
  /** Bytes of each file that `examine` reads, of a datagram of `ask`, and mounts that `examineMounts` looks for. */
  maxExaminedBytes: 16 * 1024,
  maxDatagramBytes: 4096,
  maxExaminedMounts: 1024,
  /** Ranges of ids of a user namespace: the kernel's own limit (user_namespaces(7)). */
  maxIdMappings: 340,
} as const;
