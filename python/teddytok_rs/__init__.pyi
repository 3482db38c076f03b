from .api import check as check
from .api import inspect as inspect
from .api import iter_batches as iter_batches
from .api import tokenize as tokenize
from .api import tokenize_corpus as tokenize_corpus
from .api import tokenize_to_disk as tokenize_to_disk
from .api import verify as verify
from .api import write_report as write_report
from .config.args import TokenizationArgs as TokenizationArgs
from .corpus.manifest import CorpusManifest as CorpusManifest
from .corpus.manifest import CorpusSource as CorpusSource
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import GeneMatchError as GeneMatchError
from .errors import InternalError as InternalError
from .errors import OutputError as OutputError
from .errors import ResourceError as ResourceError
from .errors import SourceError as SourceError
from .errors import TeddytokError as TeddytokError
from .errors import VocabularyError as VocabularyError
from .mapping.vocabulary import Vocabulary as Vocabulary
from .mapping.vocabulary import load_vocabulary as load_vocabulary
from .output.inspect import Inspection as Inspection
from .output.manifest import Manifest as Manifest
from .output.verify import Verification as Verification
from .pipeline.check import CheckReport as CheckReport

__version__: str
