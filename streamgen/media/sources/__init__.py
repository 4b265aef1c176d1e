"""Where frames come from; each module implements streamgen.media.source.FrameSource."""
