"""What may be written on the command line, and the help that says so."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from statespace_em import __version__
from statespace_em.cli.reading import DATASETS
from statespace_em.errors import StateSpaceError

MODELS = ("gaussian-hmm", "poisson-hmm", "categorical-hmm", "lgssm", "mixture")
ALIASES = {"linear-gaussian-ssm": "lgssm"}

MAIN_EPILOG = """\
examples:
  statespace-em fit gaussian-hmm --dataset stocks --states 3 --out run
  statespace-em fit gaussian-hmm prices.csv --columns IBM --names calm,stress --out run
  statespace-em decode run/model.nc new_prices.csv --out new_regimes.csv
  statespace-em compare poisson-hmm --dataset earthquakes --states 1-4

exit codes:
  0  done
  1  the data files are written, but the picture could not be drawn
  2  bad input: one line on stderr says what, and nothing is written
  130, 143  interrupted, terminated: nothing half-written is left

"statespace-em fit --help" and so on tell more.
"""

FIT_EPILOG = """\
writes into DIR, all at once when everything is done:
  model.nc      parameters and settings: "statespace-em decode", or GaussianHMM.load(...) in Python
  posterior.nc  the result of e_step: gamma, xi, log_likelihood (all given all data)
  decoded.csv   a row for each row of the data:
                  state                  most probable path of states given all data (Viterbi); for a
                                         mixture the most probable state of the row
                  p(NAME | all data)     smoothed probability: with hindsight
                  p(NAME | data so far)  filtered probability: never changed by later rows
                  p(NAME | row)          mixture: the rows are independent
                lgssm: mean(NAME | all data), sd(NAME | all data), and the same | data so far
  a picture     regimes.png (hidden Markov models), components.png (mixtures), track.png (lgssm of
                positions in a plane), states.png (other lgssm; of sums the components)

lgssm designs (default: velocity for two columns called east, north or x, y; free with --states; else level):
  level     local_level() of one column; of several each is a random walk, with covariances of steps and of noise
  velocity  constant_velocity of the columns, acceleration: constant_acceleration, at the times of the time column
            (dates and durations in seconds), even or not
  free      every matrix is estimated, for --states K; the basis of the states is arbitrary
  others    a sum as statespace_em.designs has it in Python, in quotes: "local_trend() + seasonal(12)", "ar(2) +
            constant()", "arima(0, 1, 1)", "local_level(unit='h')", "coordinated_turn(0.1, ['east', 'north'])"
            Nothing is known of the first state (exact diffuse), and the likelihood is that of the design in Python.

examples:
  statespace-em fit gaussian-hmm --dataset stocks --states 3 --out run
  statespace-em fit gaussian-hmm --dataset stocks --columns MSFT,AAPL --covariance diagonal --states 2 --out run
  statespace-em fit poisson-hmm counts.csv --time day --columns calls --names quiet,busy --out run
  statespace-em fit categorical-hmm panel.parquet --sequence patient --states 3 --out run
  statespace-em fit lgssm --dataset radar --out run
  statespace-em fit lgssm passengers.csv --design "local_trend() + seasonal(12)" --out run
  statespace-em fit mixture --family gaussian --dataset old_faithful --names short,long --out run
"""

DECODE_EPILOG = """\
The columns are those of decoded.csv, see "statespace-em fit --help". Columns of the data are found by the names
that the model was fitted with.

examples:
  statespace-em decode run/model.nc new.csv                 prints the CSV
  statespace-em decode run/model.nc new.csv --out new_states.csv
"""

COMPARE_EPILOG = """\
The table: states, log_likelihood (nats), n_parameters, aic, bic, status of the fit.
n_parameters counts what EM may change: entries of probability vectors less one for each sum to 1, the initial
distribution included, and the lower triangle of covariances; for lgssm (free design) less states^2, since the
basis of the states is arbitrary. aic = 2 n_parameters - 2 log_likelihood, bic = log(n) n_parameters - 2
log_likelihood with n the number of rows that are not wholly missing. Lower is better.

example:
  statespace-em compare gaussian-hmm --dataset stocks --states 1-4
"""


class UsageError(StateSpaceError):
    """The command line cannot be understood."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like all others of this program."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise UsageError(f"{message.rstrip('.')}. See {self.prog} --help.")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of a command line; FILE may stand anywhere.

    Raises
    ------
    UsageError
        If it cannot be understood.
    """
    options, rest = parser().parse_known_args(words)
    if len(rest) == 1 and not rest[0].startswith("-") and options.file is None:
        options.file = rest.pop()  # argparse before Python 3.13 misses an optional FILE that follows an option
    if rest:
        raise UsageError(f"unrecognized arguments: {' '.join(rest)}. See statespace-em {options.command} --help.")
    return options


def parser() -> Parser:
    """Parser of the whole command line."""
    top = Parser(
        prog="statespace-em",
        description="Fit hidden Markov, linear-Gaussian and mixture models by EM.",
        epilog=MAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"statespace-em {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")

    def command(name: str, text: str, epilog: str) -> Parser:
        layout = argparse.RawDescriptionHelpFormatter
        about = f"{text[0].upper()}{text[1:]}."
        return commands.add_parser(name, help=text, description=about, epilog=epilog, formatter_class=layout)

    fit = command("fit", "fit a model; write model, posterior, decoded states and a picture", FIT_EPILOG)
    _add_model(fit)
    _add_data(fit)
    _add_states(fit)
    _add_design(fit)
    _add_search(fit)
    _add_output(fit, "DIR", "folder to write", required=True)
    decode = command("decode", "apply a saved model to data: states, smoothed and filtered, as CSV", DECODE_EPILOG)
    decode.add_argument("model", metavar="MODEL.nc", help="a saved model, such as run/model.nc")
    _add_data(decode)
    _add_output(decode, "FILE.csv", "CSV to write (default: print it)")
    compare = command("compare", "fit several numbers of states and print a table", COMPARE_EPILOG)
    _add_model(compare)
    _add_data(compare)
    compare.add_argument("--states", required=True, metavar="LIST", help="numbers of states: 1-4, or 1,2,3")
    _add_search(compare)
    _add_output(compare, "FILE.csv", "write the table as CSV, too")
    return top


def _add_model(to: Parser) -> None:
    to.add_argument(
        "model", metavar="MODEL", choices=(*MODELS, *ALIASES), help=f"{', '.join(MODELS)} (or linear-gaussian-ssm)"
    )
    group = to.add_argument_group("model")
    group.add_argument(
        "--covariance", choices=("full", "diagonal", "spherical", "tied"), help="of Gaussian states (default: full)"
    )
    group.add_argument("--family", choices=("gaussian", "poisson", "categorical"), help="of a mixture (required there)")
    group.add_argument(
        "--order-by",
        choices=("variance", "mean", "none"),
        help="order of the states, upwards (default: variance for gaussian-hmm, mean for the rest; symbols have none)",
    )


def _add_data(to: Parser) -> None:
    to.add_argument("file", metavar="FILE", nargs="?", help="CSV, TSV, Parquet (needs pyarrow) or NetCDF")
    group = to.add_argument_group("data")
    group.add_argument("--dataset", choices=tuple(DATASETS), help="data that come with the package, in place of FILE")
    group.add_argument(
        "--columns",
        metavar="NAMES",
        help="columns to model, separated by commas (default: all of a file but times and sequences, the main ones "
        "of a data set: stocks has the log returns IBM (the default), MSFT, AAPL, GOOG)",
    )
    group.add_argument(
        "--time",
        metavar="COLUMN",
        help="column with the times (default: one called date, datetime, timestamp, time or year; else the first "
        "column if it holds dates; else rows are numbered); time zones are turned into UTC",
    )
    group.add_argument("--sequence", metavar="COLUMN", help="column that tells the sequences of a panel apart")
    group.add_argument("--sort", action="store_true", help="sort the rows by time (default: complain)")


def _add_states(to: Parser) -> None:
    group = to.add_argument_group("states")
    group.add_argument("--states", type=int, metavar="K", help="number of states (required but for --names and lgssm)")
    group.add_argument("--names", metavar="NAMES", help="names of the states in their order, such as calm,stress")


def _add_design(to: Parser) -> None:
    to.add_argument_group("lgssm").add_argument(
        "--design", metavar="DESIGN", help="see below for what they are and which is the default"
    )


def _add_search(to: Parser) -> None:
    group = to.add_argument_group("fit")
    group.add_argument("--starts", type=int, metavar="N", help="starts of EM (default: those of the model in Python)")
    group.add_argument("--seed", type=int, default=0, help="of the starts (default: 0)")
    group.add_argument("--max-iter", type=int, default=1000, metavar="N", help="most E-steps (default: 1000)")
    group.add_argument("--tol", type=float, default=1e-8, metavar="NATS", help="gain to come at which to stop (1e-8)")
    group.add_argument("--progress", action="store_true", help="show a progress bar")


def _add_output(to: Parser, metavar: str, text: str, *, required: bool = False) -> None:
    group = to.add_argument_group("output")
    group.add_argument("--out", required=required, metavar=metavar, help=text)
    group.add_argument("--force", action="store_true", help="replace what an earlier run wrote")
