"""CMI, separation and NCMI of a classifier's outputs, in nats; their bootstrap; a torchmetrics metric."""

from robustbench_cmic.information.measures import Information, InformationSums, measure_information

__all__ = ["Information", "InformationSums", "measure_information"]
