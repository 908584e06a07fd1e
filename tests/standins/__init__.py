"""What moto lacks of AWS, added to moto's own endpoint: Bedrock, S3 Vectors queries, Rekognition.

Requests arrive through a real boto3 client (so botocore has checked and signed them); every answer
is checked against botocore's service model before moto sends it back. Start moto (``mock_aws``)
first; each stand-in is a context manager.
"""
