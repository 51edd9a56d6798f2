import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.LocatedFileStatus;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.RemoteIterator;
import org.apache.hadoop.mapred.JobConf;
import org.apache.hadoop.mapreduce.JobStatus;
import org.apache.hadoop.mapreduce.TaskAttemptContext;
import org.apache.hadoop.mapreduce.TaskAttemptID;
import org.apache.hadoop.mapreduce.TaskType;
import org.apache.hadoop.mapreduce.lib.output.FileOutputCommitter;
import org.apache.hadoop.mapreduce.task.TaskAttemptContextImpl;

/**
 * Drives writes by hand, in an exact order, as Spark's driver and tasks do: {@code Committers <class> [attempts]}.
 *
 * <p>Prints one line per situation: its name, how each job commit ended, and the published files. With {@code attempts},
 * each launch has an application attempt id of its own, and skips the cleanup.
 */
public class Committers {
  static Class<? extends FileOutputCommitter> kind;
  static boolean attempts;
  static Path out;
  static FileSystem files;

  /** One write: {@code owner} is its application. */
  static final class Write {
    final JobConf conf = new JobConf(new Configuration(false));
    final String name;
    final FileOutputCommitter job;

    Write(String owner, String name) throws Exception {
      this.name = name;
      conf.set("mapreduce.fileoutputcommitter.algorithm.version", "1");
      conf.set("offsets.scratch.owner", owner);
      if (attempts) {
        conf.setInt("mapreduce.job.application.attempt.id", owner.hashCode() & 0xffff);
        conf.setBoolean("mapreduce.fileoutputcommitter.cleanup.skipped", true);
      }
      job = committer(0);
      job.setupJob(context(0));
    }

    TaskAttemptContext context(int task) {
      return new TaskAttemptContextImpl(conf, new TaskAttemptID(name, 0, TaskType.MAP, task, 0));
    }

    FileOutputCommitter committer(int task) throws Exception {
      return kind.getConstructor(Path.class, TaskAttemptContext.class).newInstance(out, context(task));
    }

    Write open(int task) throws Exception {
      FileOutputCommitter committer = committer(task);
      committer.setupTask(context(task));
      Path folder = new Path(committer.getWorkPath(), "day=" + task);
      files.create(new Path(folder, name + task)).close();
      return this;
    }

    Write end(int task) throws Exception {
      FileOutputCommitter committer = committer(task);
      if (committer.needsTaskCommit(context(task))) {
        committer.commitTask(context(task));
      }
      return this;
    }

    Write done(int task) throws Exception {
      return open(task).end(task);
    }

    void abort() throws Exception {
      job.abortJob(context(0), JobStatus.State.FAILED);
    }

    String commit() {
      try {
        job.commitJob(context(0));
        return name + " ok";
      } catch (Exception error) {
        return name + " failed";
      }
    }
  }

  static void show(String situation, String... said) throws Exception {
    List<String> there = new ArrayList<>();
    RemoteIterator<LocatedFileStatus> all = files.listFiles(out, true);
    while (all.hasNext()) {
      String path = all.next().getPath().toString();
      there.add(path.substring(path.indexOf("/out/") + 5));
    }
    there.removeIf(each -> each.startsWith("_"));
    Collections.sort(there);
    System.out.println(situation + " | " + String.join(", ", said) + " | " + String.join(" ", there));
  }

  static void fresh() throws Exception {
    out = new Path(Files.createTempDirectory("committers").toUri().toString(), "out");
    files = out.getFileSystem(new Configuration(false));
  }

  public static void main(String[] arguments) throws Exception {
    kind = Class.forName(arguments[0]).asSubclass(FileOutputCommitter.class);
    attempts = arguments.length > 1;

    fresh();
    Write a = new Write("a.1", "a").done(1).open(0);
    Write b = new Write("b.1", "b").done(0);
    String committed = b.commit();
    Write more = new Write("b.1", "more").done(0);
    show("beside a commit", committed, a.end(0).commit(), more.commit());

    fresh();
    a = new Write("a.1", "a").done(1).open(0);
    new Write("b.1", "b").done(0).abort();
    show("beside an abort", a.done(2).end(0).commit());

    fresh();
    new Write("a.1", "a").done(0).abort();
    show("written again after a failure", new Write("a.1", "again").done(0).commit());

    fresh();
    a = new Write("a.1", "a").done(0);
    for (String each : new String[] {"_temporary", "_offsets_temporary"}) {
      files.delete(new Path(out, each), true);
    }
    String late = "late ok";
    try {
      a.done(1);
    } catch (Exception error) {
      late = "late failed";
    }
    show("scratch folder removed in between", late, a.commit());

    fresh();
    new Write("a.1", "dead").done(0);
    Write beside = new Write("b.1", "beside").done(0);
    String next = new Write("a.2", "next").done(1).commit();
    show("after a launch that was killed", next, beside.commit());
    System.out.println("left: " + files.exists(new Path(out, "_offsets_temporary")));
  }
}
