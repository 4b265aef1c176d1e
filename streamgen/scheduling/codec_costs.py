"""What a picture of 480x832 costs to encode and to decode on an H100: the one place that says so.

Wan VAE. By arithmetic 3.39 TFLOP a picture to decode and 2.01 to encode (a test counts them). In
seconds: MotionStream (arXiv:2511.01266) goes from 16.85 to 29.5 pictures a second by decoding with
a tiny codec, so the full one takes 25.4 ms a picture more; StreamDiffusionV2 (arXiv:2511.07399)
publishes 42.26 where the last GPU decodes, so it takes 23.7 ms at most; the profile of Dummy
Forcing (arXiv:2601.20499) gives it 57 % of 57 ms, which is 32.6. 25.4 ms are taken: 133 TFLOP/s.

The other three are shares of it, from LightX2V's table of one clip of 81 pictures at 480p on an
H100 (ComfyUI-LightVAE 183e1cb, README): the full codec encodes in 4.2 s and decodes in 5.5 s, the
tiny one (TAEHV, taew2_1) in .4 and .25 s. Only the shares: that table decodes 2.7 times as slowly.
By arithmetic alone the tiny codec would take .04 of the full one to decode and .03 to encode.

None of this was measured by this project.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.scheduling.latency import LatencyFit

CALL_S = 0.001  # of a call, assumed: launches
DECODE_S = 1 / 16.85 - 1 / 29.5
ENCODE_SHARE = 4.2 / 5.5
TINY_ENCODE_SHARE = 0.4 / 4.2
TINY_DECODE_SHARE = 0.25 / 5.5
TINY_SHARE = (0.4 + 0.25) / (4.2 + 5.5)  # of both directions together

VAE_TFLOP = (2.01, 3.39)  # of a picture, to encode and to decode, in a stream that goes on
TAEHV_TFLOP = (0.0605, 0.136)


@dataclass(frozen=True, slots=True)
class CodecCosts:
    """Seconds over pictures, of 480x832 on an H100."""

    name: str
    encode: LatencyFit
    decode: LatencyFit


WAN_VAE = CodecCosts(
    "Wan VAE",
    encode=LatencyFit(CALL_S, ENCODE_SHARE * DECODE_S),
    decode=LatencyFit(CALL_S, DECODE_S),
)
TAEHV = CodecCosts(
    "tiny codec",
    encode=LatencyFit(CALL_S, TINY_ENCODE_SHARE * ENCODE_SHARE * DECODE_S),
    decode=LatencyFit(CALL_S, TINY_DECODE_SHARE * DECODE_S),
)
