"""What may be asked: an answer, a clip, what one will take. Knows neither page nor HTTP."""
