/** What one SPDY session may cost us; each is tested where it bites. */
export const spdyLimits = {
  /** Payload of one frame that is not data; larger ones end the session. */
  controlFrameBytes: 64 * 1024,
  /** One block of headers after decompression. */
  headerBlockBytes: 64 * 1024,
  headers: 64,
  /** Open at one time; further ones are refused. */
  streams: 512,
  /** Refused in one session: then the session ends. */
  refusals: 1000,
  /** Received and not yet taken: of one stream, and of all; above, nothing is read from the client. */
  streamQueueBytes: 256 * 1024,
  sessionQueueBytes: 1024 * 1024,
  /** Written and not yet taken by the client; above it, answers to it are not kept any longer: the session ends. */
  backlogBytes: 4 * 1024 * 1024,
  /** Data in one frame of ours. */
  dataFrameBytes: 64 * 1024,
} as const;
