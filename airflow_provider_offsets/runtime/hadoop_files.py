"""Checkpoint files read as the driver itself reads them: through Hadoop's file systems in the session's JVM."""

from __future__ import annotations

from typing import Any


class HadoopCheckpoint:
    """The files of one checkpoint directory, on any file system that this driver's Spark can write to."""

    def __init__(self, spark: Any, location: str) -> None:
        self.location = location
        self._jvm = spark._jvm
        self._root = self._jvm.org.apache.hadoop.fs.Path(location)
        self._files = self._root.getFileSystem(spark._jsc.hadoopConfiguration())

    def names(self, folder: str) -> list[str]:
        """Return the names in a directory; an empty list if the directory does not exist."""
        path = self._path(folder)
        if not self._files.exists(path):
            return []
        return [status.getPath().getName() for status in self._files.listStatus(path)]

    def text(self, path: str) -> str | None:
        """Return the text of a file, or None if the file does not exist."""
        target = self._path(path)
        if not self._files.exists(target):
            return None
        stream = self._files.open(target)
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def _path(self, relative: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(self._root, relative)
