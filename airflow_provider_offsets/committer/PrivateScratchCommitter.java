package offsets;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.util.HashSet;
import java.util.Set;
import java.util.UUID;

import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.mapreduce.JobContext;
import org.apache.hadoop.mapreduce.JobStatus;
import org.apache.hadoop.mapreduce.TaskAttemptContext;
import org.apache.hadoop.mapreduce.lib.output.FileOutputCommitter;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A FileOutputCommitter whose scratch folder belongs to one write alone: {@code <out>/_offsets_temporary/<owner>/<write>}.
 *
 * <p>Hadoop's own committer assumes that nobody else writes to the folder (MAPREDUCE-7366). All Spark applications share
 * {@code <out>/_temporary/0}: a job commit publishes the finished tasks of other jobs, and a job commit or an abort
 * removes their open files. Their tasks then succeed with "No Output found".
 *
 * <p>Differences from algorithm version 1:
 *
 * <ul>
 *   <li>Only the write's own scratch folder is published and removed.
 *   <li>A folder is published by mkdirs and a rename of each file. A rename of the whole folder ends up inside a folder
 *       of the same name, if another job has created it in between.
 *   <li>A write whose scratch folder was removed fails. Hadoop's committer would publish what is left.
 *   <li>The first act of a write removes what earlier launches of the same owner left.
 * </ul>
 */
public final class PrivateScratchCommitter extends FileOutputCommitter {
  /** Key of the owner's name, {@code <group>.<number>}. */
  public static final String OWNER = "offsets.scratch.owner";

  static final String FOLDER = "_offsets_temporary";
  static final String STARTED = "_started";
  /**
   * Key of the write's id. The driver sets it in {@link #setupJob}, and Spark sends the configuration to the tasks after
   * that. Spark's own id, spark.sql.sources.writeJobUUID, is set too late for the driver (Spark 4.2.0).
   */
  static final String WRITE = "offsets.scratch.write";

  private static final Logger LOG = LoggerFactory.getLogger(PrivateScratchCommitter.class);
  private static final int MOST_TRIES = 5;

  private final String owner;
  private final String write;
  private final Path root;
  private final Path scratch;
  private final Path work;

  public PrivateScratchCommitter(Path output, TaskAttemptContext context) throws IOException {
    super(output, context);
    Configuration conf = context.getConfiguration();
    owner = conf.getTrimmed(OWNER, "");
    if (owner.isEmpty()) {
      throw new IOException(OWNER + " is not set: start the job with the airflow-provider-offsets that set its committer");
    }
    root = new Path(getOutputPath(), FOLDER);
    write = conf.get(WRITE, UUID.randomUUID().toString());
    scratch = new Path(new Path(root, owner), write);
    work = getTaskAttemptPath(context);
  }

  @Override
  public Path getWorkPath() {
    return work;
  }

  @Override
  public Path getJobAttemptPath(JobContext context) {
    return scratch;
  }

  @Override
  protected Path getJobAttemptPath(int appAttemptId) {
    return scratch;
  }

  @Override
  public Path getTaskAttemptPath(TaskAttemptContext context) {
    return new Path(new Path(scratch, PENDING_DIR_NAME), context.getTaskAttemptID().toString());
  }

  @Override
  public Path getCommittedTaskPath(TaskAttemptContext context) {
    return new Path(scratch, context.getTaskAttemptID().getTaskID().toString());
  }

  @Override
  protected Path getCommittedTaskPath(int appAttemptId, TaskAttemptContext context) {
    return getCommittedTaskPath(context);
  }

  @Override
  public void setupJob(JobContext context) throws IOException {
    context.getConfiguration().set(WRITE, write);
    FileSystem files = files(context);
    removeSuperseded(files);
    // Another write may remove the empty folder above while this one creates its own below.
    for (int tries = 1; ; tries++) {
      try {
        files.create(new Path(scratch, STARTED), true).close();
        return;
      } catch (IOException error) {
        if (tries == MOST_TRIES) {
          throw error;
        }
      }
    }
  }

  /** A task that writes elsewhere than its driver publishes would lose its output. */
  @Override
  public void setupTask(TaskAttemptContext context) throws IOException {
    requireStarted(files(context));
  }

  @Override
  public void commitJob(JobContext context) throws IOException {
    FileSystem files = files(context);
    requireStarted(files);
    Set<Path> made = new HashSet<>();
    for (FileStatus task : files.listStatus(scratch, path -> path.getName().startsWith("task_"))) {
      publishChildren(files, task.getPath(), getOutputPath(), made);
    }
    try {
      cleanupJob(context);
    } catch (IOException error) {
      // The output is complete: a failure here would repeat it. The next launch removes what is left.
      LOG.warn("{} was not removed", scratch, error);
    }
    if (context.getConfiguration().getBoolean(SUCCESSFUL_JOB_OUTPUT_DIR_MARKER, true)) {
      markSuccess(files);
    }
  }

  @Override
  public void abortJob(JobContext context, JobStatus.State state) throws IOException {
    cleanupJob(context);
  }

  @Override
  @Deprecated
  public void cleanupJob(JobContext context) throws IOException {
    FileSystem files = files(context);
    files.delete(scratch, true);
    removeIfEmpty(files, scratch.getParent());
    removeIfEmpty(files, root);
  }

  private void requireStarted(FileSystem files) throws IOException {
    if (!files.exists(new Path(scratch, STARTED))) {
      throw new FileNotFoundException(
          scratch + " was removed while the job wrote: another job overwrites the folder, or a newer launch has replaced this"
              + " one. Nothing of this write was published");
    }
  }

  private FileSystem files(JobContext context) throws IOException {
    return scratch.getFileSystem(context.getConfiguration());
  }

  private void publishChildren(FileSystem files, Path from, Path to, Set<Path> made) throws IOException {
    for (FileStatus each : files.listStatus(from)) {
      Path target = new Path(to, each.getPath().getName());
      if (each.isDirectory()) {
        if (made.add(target) && !files.mkdirs(target)) {
          throw new IOException("Failed to create " + target);
        }
        publishChildren(files, each.getPath(), target, made);
      } else if (!files.rename(each.getPath(), target)) {
        throw new IOException("Failed to rename " + each.getPath() + " to " + target);
      }
    }
  }

  /** Two jobs may mark the folder at once, and either may find its empty file replaced. */
  private void markSuccess(FileSystem files) throws IOException {
    Path marker = new Path(getOutputPath(), SUCCEEDED_FILE_NAME);
    try {
      files.create(marker, true).close();
    } catch (IOException error) {
      if (!files.exists(marker)) {
        throw error;
      }
    }
  }

  /** Remove the scratch folders of owners with the same group and a lower number: their launches are over. */
  private void removeSuperseded(FileSystem files) throws IOException {
    String group = owner.substring(0, owner.lastIndexOf('.') + 1);
    FileStatus[] owners;
    try {
      owners = files.listStatus(root);
    } catch (FileNotFoundException none) {
      return;
    }
    for (FileStatus each : owners) {
      String name = each.getPath().getName();
      if (name.startsWith(group) && name.length() == owner.length() && name.compareTo(owner) < 0) {
        LOG.info("Removing {}, which an earlier launch left", each.getPath());
        files.delete(each.getPath(), true);
      }
    }
  }

  private static void removeIfEmpty(FileSystem files, Path folder) {
    try {
      if (files.listStatus(folder).length == 0) {
        files.delete(folder, false);
      }
    } catch (IOException inUse) {
      LOG.debug("{} stays", folder, inUse);
    }
  }
}
