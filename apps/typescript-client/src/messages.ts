// Made by scripts/write_contract.py from the server's models; do not edit.

export interface PresetOffer {
  name: string;
  description: string;
  knowledge: string;
  takes_video: boolean;
  width: number;
  height: number;
  fps: number;
  steps: number;
}

/** Begin a stream; one that runs is ended before. */
export interface Start {
  type: "start";
  preset: string;
  prompt: string;
  seed?: number | null;
  strength?: number | null;
  steps?: number | null;
  /** Go on where another stream was: what the server called the snapshot that it was given. */
  snapshot?: string | null;
  /** Whether to wait in line where all places are taken; else that is a problem. */
  wait?: boolean;
}

/** Draw otherwise from the next chunk on; what is left out stays. */
export interface Change {
  type: "change";
  prompt?: string | null;
  /** Within how many chunks the new prompt takes over; by default as the preset says. */
  over_chunks?: number | null;
  seed?: number | null;
  strength?: number | null;
  steps?: number | null;
}

export interface Pause {
  type: "pause";
}

export interface Resume {
  type: "resume";
}

/** Begin anew: the same stream, from its first chunk. */
export interface Reset {
  type: "reset";
}

/** End the stream and leave the place to somebody else; the connection stays. */
export interface Stop {
  type: "stop";
}

/** One more picture has reached the screen. */
export interface Shown {
  type: "shown";
}

/** The first message: what can be started here. */
export interface Offer {
  type: "offer";
  presets: PresetOffer[];
  /** Streams that can run at once. */
  places: number;
}

/** All places are taken; this many are in front, the next one included: 1 is the next. */
export interface Waiting {
  type: "waiting";
  position: number;
}

/** What the stream is now, which may be less than was wished for. */
export interface GrantedSettings {
  type: "granted";
  preset: string;
  takes_video: boolean;
  prompt: string;
  seed: number;
  strength: number | null;
  steps: number;
  width: number;
  height: number;
  /** Of the prompt, that have no effect. */
  unknown_words: string[];
  knowledge: string;
  /** Its name in /streamgen/sessions. */
  session: string;
  /** Of a stream that is made from text; a restyled input keeps its own rate. */
  fps: number;
  /** Either "full" or the rung of the service level that it was let in at. */
  quality: string;
}

/** One more picture has arrived; `fps` is how many a second can be used. */
export interface Taken {
  type: "taken";
  fps: number;
}

/** How the stream does, over the last second. */
export interface Figures {
  type: "figures";
  /** Pictures handed out. */
  fps: number;
  /** From a picture's arrival here to that of its successor, median. */
  age_ms: number | null;
  /** Pictures taken. */
  input_fps: number;
  /** Pictures that should be sent. */
  wanted_fps: number;
  /** Since the start: pictures that came too fast, in or out. */
  dropped: number;
  /** Running here, of all visitors. */
  streams: number;
  places: number;
  /** As in `granted`. */
  quality: string;
}

/** Something could not be done, in one line; a fatal problem ends the stream. */
export interface Problem {
  type: "problem";
  message: string;
  /** Whether the same may work later. */
  retryable: boolean;
  fatal: boolean;
  /** When, where that is known. */
  retry_after_s: number | null;
}

/** The stream goes on in another process, from its last pictures; `granted` comes again. */
export interface Moved {
  type: "moved";
  reason: string;
  /** For which nothing was drawn. */
  gap_s: number;
}

export interface Ended {
  type: "ended";
}

/** Why something could not be done, in one line. */
export interface Failure {
  message: string;
  /** Whether the same may work later. */
  retryable: boolean;
  retry_after_s: number | null;
}

/** A session that runs. */
export interface SessionFacts {
  session: string;
  /** Since it began. */
  seconds: number;
  is_paused: boolean;
  granted: GrantedSettings;
  /** Of the last second; none in its first one. */
  figures: Figures | null;
}

/** What should be otherwise from the next chunk on; what is left out stays. */
export interface SessionChange {
  prompt?: string | null;
  /** Within how many chunks the new prompt takes over; by default as the preset says. */
  over_chunks?: number | null;
  strength?: number | null;
  /** With another number of steps the stream begins anew. */
  steps?: number | null;
  /** With another seed the stream begins anew. */
  seed?: number | null;
  is_paused?: boolean | null;
}

export interface HeldSnapshot {
  /** For `start`. */
  snapshot: string;
  /** For how long it is kept. */
  kept_s: number;
}

/** How full a server is. */
export interface Load {
  state: State;
  sessions: number;
  waiting: number;
  /** Sessions that there is memory for. */
  places: number;
  /** Sessions that it will keep up with, as far as it has measured: at most `places`. */
  capacity: number;
}

export type Command = Start | Change | Pause | Resume | Reset | Stop | Shown;

export type Report = Offer | Waiting | GrantedSettings | Taken | Figures | Problem | Moved | Ended;

export type State = "starting" | "ready" | "draining" | "failed";

export const IN_FLIGHT = 2;
