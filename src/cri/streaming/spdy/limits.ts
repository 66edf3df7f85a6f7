/** Limits of one SPDY session, each with a test. */
export const spdyLimits = {
  /** Payload of one frame other than data; larger ones end the session. */
  controlFrameBytes: 64 * 1024,
  /** Size of one block of headers after decompression. */
  headerBlockBytes: 64 * 1024,
  headers: 64,
  /** Concurrently open streams; further ones are refused. */
  streams: 512,
  /** Refused streams in one session; more end it. */
  refusals: 1000,
  /** Received bytes that were not read yet, for one stream and for all; above it, reading from the client pauses. */
  streamQueueBytes: 256 * 1024,
  sessionQueueBytes: 1024 * 1024,
  /** Written bytes that the client has not accepted; above it, the session ends. */
  backlogBytes: 4 * 1024 * 1024,
  /** Data in one frame that the server sends. */
  dataFrameBytes: 64 * 1024,
} as const;
