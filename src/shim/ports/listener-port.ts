/** Port to which connections in a pod's netns are redirected. It is free: the pod's own ports are in its machine. */
export const forwardedTo = 1;
