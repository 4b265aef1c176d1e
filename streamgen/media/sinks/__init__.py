"""Where frames go; each module implements streamgen.media.sink.FrameSink."""
